// Golden files: inputs, weights and the float64 reference's outputs and gradients of whole cases, checked against this
// program. Nothing is assumed that the file does not say, and nothing in it is passed over: an unknown kind, setting or
// tensor fails its case and is named. (Tensors `probe/*` hold the reference's internal values and are not compared.)
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/stop.h"
#include "kernels/base/status.h"

namespace rat {

// Relative errors ||a - b|| / ||b|| against the file, b its values. The bounds of the golden format for float32.
struct VerifyTolerance {
  double output = 1e-5;    // layer output; logits and loss of a model
  double gradient = 5e-5;  // each weight's gradient, and the input's
  double decode = 1e-5;    // prefill and token-by-token outputs: the same values by another route, so the same bound
  double train = 1e-4;     // every training loss (absolute, nats) and every trained weight (relative)

  static VerifyTolerance of(std::string_view dtype) {
    if (dtype == "bf16") return {2e-2, 2e-2, 2e-2, 2e-2};
    if (dtype == "tf32") return {2e-3, 5e-3, 2e-3, 2e-3};
    if (dtype == "bf16x3") return {1e-4, 2e-4, 1e-4, 1e-4};
    return {};
  }
};

// An error is absent where the case has nothing of the sort or did not get that far.
struct CaseResult {
  std::string name;
  std::string kind;  // the mixer of a layer case; "model" for a language model
  bool pass = false;
  std::optional<double> output_err, grad_err, decode_err, train_err;  // the worst of its group
  std::string reason;                                                 // of a failure: what, with values
};

struct VerifyReport {
  std::string device, dtype;
  int64_t passed = 0, failed = 0;
  std::vector<CaseResult> cases;
};

struct VerifyOptions {
  std::string device = "cpu";
  std::string dtype = "f32";
  const StopFlag* stop = nullptr;
  std::function<void(const CaseResult&)> progress;  // after each case
};

// An error only for what concerns no single case: an unreadable file, a device or dtype this build does not have.
Result<VerifyReport> verify(std::span<const std::filesystem::path> files, const VerifyOptions& options);
// The form `rat verify --json` prints.
std::string to_json(const VerifyReport& report);

}  // namespace rat
