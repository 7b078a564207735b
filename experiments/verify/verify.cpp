#include "experiments/verify/verify.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/io/safetensors.h"
#include "experiments/verify/golden_case.h"
#include "kernels/base/dtype.h"

namespace rat {
namespace {

Result<nlohmann::json> read_cases(const std::string& path, const SafetensorsFile& file) {
  const auto text = file.metadata().find("cases");
  if (text == file.metadata().end())
    return fail(ErrorCode::corrupt_data, "{} is not a golden file: its metadata has no 'cases'", path);
  nlohmann::json cases = nlohmann::json::parse(text->second, nullptr, false);
  if (!cases.is_object() || cases.empty())
    return fail(ErrorCode::corrupt_data, "{} is not a golden file: its 'cases' are no JSON object with entries", path);
  for (const auto& [name, tensor] : file.tensors())
    if (!cases.contains(name.substr(0, name.find('/'))))
      return fail(ErrorCode::corrupt_data, "{} has the tensor '{}', whose case is not listed in its metadata", path,
                  name);
  return cases;
}

// What stops a case half-way becomes its reason.
Result<CaseResult> run_case(const SafetensorsFile& file, const std::string& name, const nlohmann::json& object,
                            const VerifyOptions& options) {
  CaseResult result;
  result.name = name;
  if (!object.is_object()) {
    result.reason = "its settings are no JSON object";
    return result;
  }
  Settings settings(object, "settings");
  CaseTensors tensors(file, name);
  const bool is_model = object.contains("layers");
  const auto kind = object.find("kind");
  result.kind = is_model ? "model" : kind != object.end() && kind->is_string() ? kind->get<std::string>() : "";
  const Status status =
      is_model ? verify_model(settings, tensors, options, result) : verify_layer(settings, tensors, options, result);
  if (!status) {
    if (status.error().code == ErrorCode::cancelled) return status.error();
    result.pass = false;
    result.reason = status.error().message;
  }
  return result;
}

Status verify_file(const std::filesystem::path& path, const VerifyOptions& options, VerifyReport& report) {
  RAT_ASSIGN(const SafetensorsFile file, SafetensorsFile::open(path));
  RAT_ASSIGN(const nlohmann::json cases, read_cases(path.string(), file));
  for (const auto& [name, object] : cases.items()) {
    if (options.stop && options.stop->requested()) return fail(ErrorCode::cancelled, "The verification was stopped");
    RAT_ASSIGN(CaseResult result, run_case(file, name, object, options));
    ++(result.pass ? report.passed : report.failed);
    if (options.progress) options.progress(result);
    report.cases.push_back(std::move(result));
  }
  return ok();
}

// JSON has no NaN or infinity: they become text, absent errors null.
nlohmann::ordered_json number_or_null(const std::optional<double>& value) {
  if (!value) return nullptr;
  if (std::isfinite(*value)) return *value;
  return fmt::format("{}", *value);
}

}  // namespace

Result<VerifyReport> verify(std::span<const std::filesystem::path> files, const VerifyOptions& options) {
  RAT_ASSIGN(const kernels::Backend* const device, kernels::find_backend(options.device));
  RAT_ASSIGN(const kernels::Dtype dtype, kernels::parse_dtype(options.dtype));
  RAT_TRY(device->supports(dtype));
  VerifyReport report{.device = options.device, .dtype = options.dtype, .cases = {}};
  for (const std::filesystem::path& file : files) RAT_TRY(verify_file(file, options, report));
  return report;
}

std::string to_json(const VerifyReport& report) {
  nlohmann::ordered_json cases = nlohmann::ordered_json::array();
  for (const CaseResult& one : report.cases) {
    nlohmann::ordered_json row{{"name", one.name},
                               {"kind", one.kind},
                               {"pass", one.pass},
                               {"output_err", number_or_null(one.output_err)},
                               {"grad_err", number_or_null(one.grad_err)},
                               {"decode_err", number_or_null(one.decode_err)},
                               {"train_err", number_or_null(one.train_err)}};
    if (!one.pass) row["reason"] = one.reason;
    cases.push_back(std::move(row));
  }
  const nlohmann::ordered_json document{{"device", report.device},
                                        {"dtype", report.dtype},
                                        {"passed", report.passed},
                                        {"failed", report.failed},
                                        {"cases", std::move(cases)}};
  return document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace rat
