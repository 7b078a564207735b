// In which precision matrix products are computed. Weights, optimizer state, statistics and sums are always f32.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/status.h"

namespace rat::kernels {

enum class Dtype : uint8_t {
  f32,
  bf16,    // operands of matrix products rounded to bfloat16, sums in f32
  bf16x3,  // operands as sums of two bf16 values (16 significant bits), three products, sums in f32: nearly f32
  bf16x6,  // of three (24 bits, all of f32), six products: within f32's own bounds; infinite operands give NaN
  tf32,    // operands rounded to 11 significant bits by a GPU's matrix unit, sums in f32
};

std::span<const Dtype> dtypes();                      // all there are
std::vector<std::string> dtype_names();               // of all
std::string_view dtype_name(Dtype dtype);             // "f32", "bf16", "bf16x3", "bf16x6", "tf32"
Result<Dtype> parse_dtype(std::string_view name);     // the sentence lists the known names
// Ok, or one sentence that says what this CPU lacks and to use f32.
Status cpu_supports(Dtype dtype);
// How this CPU multiplies matrices in `dtype`: "AVX3 f32", "AMX bf16 x bf16 + f32". Empty where it cannot.
std::string_view cpu_matmul_path(Dtype dtype);
// For products whose errors are amplified: bf16x3 in a bf16 model where this CPU is fast at it, else f32.
Dtype cpu_careful(Dtype dtype);

}  // namespace rat::kernels
