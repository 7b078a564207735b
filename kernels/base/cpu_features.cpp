#include "kernels/base/cpu_features.h"

#include <fmt/format.h>
#include <hwy/highway.h>
#include <hwy/targets.h>

#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>

namespace rat::kernels {
namespace {

std::string isa_name(dnnl::cpu_isa isa) {
  switch (isa) {
    case dnnl::cpu_isa::sse41:
      return "sse41";
    case dnnl::cpu_isa::avx:
      return "avx";
    case dnnl::cpu_isa::avx2:
      return "avx2";
    case dnnl::cpu_isa::avx2_vnni:
      return "avx2_vnni";
    case dnnl::cpu_isa::avx512_core:
      return "avx512_core";
    case dnnl::cpu_isa::avx512_core_vnni:
      return "avx512_core_vnni";
    case dnnl::cpu_isa::avx512_core_bf16:
      return "avx512_core_bf16";
    case dnnl::cpu_isa::avx512_core_amx:
      return "avx512_core_amx";
    default:
      return "generic";
  }
}

}  // namespace

CpuFeatures cpu_features() {
  CpuFeatures features;
  // Better targets have lower bits in Highway.
  const uint64_t usable = static_cast<uint64_t>(hwy::SupportedTargets());
  const uint64_t compiled = static_cast<uint64_t>(HWY_TARGETS);
  for (int bit = 0; bit < 63; ++bit) {
    const uint64_t target = uint64_t{1} << bit;
    if ((usable & target) == 0) continue;
    features.simd_usable.emplace_back(hwy::TargetName(static_cast<int64_t>(target)));
    if ((compiled & target) != 0 && features.simd_target.empty()) features.simd_target = features.simd_usable.back();
  }
  const dnnl::version_t* version = dnnl::version();
  features.onednn_version = fmt::format("{}.{}.{}", version->major, version->minor, version->patch);
  features.onednn_isa = isa_name(dnnl::get_effective_cpu_isa());
  return features;
}

}  // namespace rat::kernels
