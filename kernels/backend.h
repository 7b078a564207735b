// A backend is one table of kernels. Callers use the op functions (kernels/<op>/<op>.h), which check shapes once and
// then run the entry of the backend named in Exec. There is no fallback from one backend to another.
#pragma once

#include <span>
#include <string_view>

#include "kernels/base/status.h"

namespace rat::kernels {

struct MatmulArgs;
struct GatedScanArgs;
struct GatedScanBackwardArgs;
struct RangeAttentionArgs;
struct RangeAttentionBackwardArgs;
struct AttentionWeightsArgs;
struct AttendOneArgs;
struct LinearAttentionArgs;
struct LinearAttentionBackwardArgs;
struct LinearWeightsArgs;
struct LinearAbsorbArgs;
struct LinearReadArgs;
struct HeadNormArgs;
struct HeadNormBackwardArgs;
struct RmsNormArgs;
struct RmsNormBackwardArgs;
struct RopeArgs;
struct GeluArgs;
struct GeluBackwardArgs;
struct SigmoidArgs;
struct OutputGateArgs;
struct OutputGateBackwardArgs;
struct GateGradientArgs;
struct CrossEntropyArgs;
struct EmbeddingArgs;
struct EmbeddingBackwardArgs;
struct AdamWArgs;
struct SquaredNormArgs;

// A null entry: the backend does not have the op, and says so when asked.
struct Backend {
  std::string_view name;
  Status (*matmul)(const MatmulArgs&) = nullptr;
  Status (*gated_scan)(const GatedScanArgs&) = nullptr;
  Status (*gated_scan_backward)(const GatedScanBackwardArgs&) = nullptr;
  Status (*range_attention)(const RangeAttentionArgs&) = nullptr;
  Status (*range_attention_backward)(const RangeAttentionBackwardArgs&) = nullptr;
  Status (*attention_weights)(const AttentionWeightsArgs&) = nullptr;
  Status (*attend_one)(const AttendOneArgs&) = nullptr;
  Status (*linear_attention)(const LinearAttentionArgs&) = nullptr;
  Status (*linear_attention_backward)(const LinearAttentionBackwardArgs&) = nullptr;
  Status (*linear_weights)(const LinearWeightsArgs&) = nullptr;
  Status (*linear_absorb)(const LinearAbsorbArgs&) = nullptr;
  Status (*linear_read)(const LinearReadArgs&) = nullptr;
  Status (*head_norm)(const HeadNormArgs&) = nullptr;
  Status (*head_norm_backward)(const HeadNormBackwardArgs&) = nullptr;
  Status (*rms_norm)(const RmsNormArgs&) = nullptr;
  Status (*rms_norm_backward)(const RmsNormBackwardArgs&) = nullptr;
  Status (*rope)(const RopeArgs&) = nullptr;
  Status (*gelu)(const GeluArgs&) = nullptr;
  Status (*gelu_backward)(const GeluBackwardArgs&) = nullptr;
  Status (*sigmoid)(const SigmoidArgs&) = nullptr;
  Status (*output_gate)(const OutputGateArgs&) = nullptr;
  Status (*output_gate_backward)(const OutputGateBackwardArgs&) = nullptr;
  Status (*gate_gradient)(const GateGradientArgs&) = nullptr;
  Status (*cross_entropy)(const CrossEntropyArgs&) = nullptr;
  Status (*embedding)(const EmbeddingArgs&) = nullptr;
  Status (*embedding_backward)(const EmbeddingBackwardArgs&) = nullptr;
  Status (*adamw)(const AdamWArgs&) = nullptr;
  Status (*squared_norm)(const SquaredNormArgs&) = nullptr;
};

std::span<const Backend* const> backends();                  // THE list, in kernels/backend_list.cpp
Result<const Backend*> find_backend(std::string_view name);  // lists the known names on a miss
const Backend& cpu_backend();

// Where an op runs.
struct Exec {
  const Backend* backend = &cpu_backend();

  template <class Args>
  [[nodiscard]] Status run(Status (*Backend::*op)(const Args&), const char* name, const Args& args) const {
    if (backend->*op == nullptr)
      return fail(ErrorCode::unsupported, "the {} backend has no {} kernel; choose another device", backend->name,
                  name);
    return (backend->*op)(args);
  }
};

}  // namespace rat::kernels
