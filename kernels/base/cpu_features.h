// What the CPU kernels will use on this machine: for `rat doctor` and for run records.
#pragma once

#include <string>
#include <vector>

namespace rat::kernels {

struct CpuFeatures {
  std::string simd_target;               // what the Highway kernels dispatch to: "AVX3"
  std::vector<std::string> simd_usable;  // every target this CPU supports, best first
  std::string onednn_version;            // "2.6.3"
  std::string onednn_isa;                // what its matmul may use: "avx512_core_amx"
};

CpuFeatures cpu_features();

}  // namespace rat::kernels
