#include "kernels/base/dtype.h"

#include <array>

#include "kernels/matmul/panels.h"

namespace rat::kernels {

std::span<const Dtype> dtypes() {
  static constexpr std::array all{Dtype::f32, Dtype::bf16, Dtype::bf16x3, Dtype::bf16x6, Dtype::tf32};
  return all;
}

std::vector<std::string> dtype_names() {
  std::vector<std::string> names;
  for (const Dtype dtype : dtypes()) names.emplace_back(dtype_name(dtype));
  return names;
}

std::string_view dtype_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return "f32";
    case Dtype::bf16:
      return "bf16";
    case Dtype::bf16x3:
      return "bf16x3";
    case Dtype::bf16x6:
      return "bf16x6";
    case Dtype::tf32:
      return "tf32";
  }
  return "";
}

Result<Dtype> parse_dtype(std::string_view name) {
  for (const Dtype dtype : dtypes())
    if (name == dtype_name(dtype)) return dtype;
  return fail(ErrorCode::invalid_argument, "dtype is '{}'; it must be one of: {}", name, fmt::join(dtype_names(), ", "));
}

Status cpu_supports(Dtype dtype) {
  if (dtype == Dtype::tf32)
    return fail(ErrorCode::unsupported, "tf32 is a GPU's; use dtype f32 on the CPU, or device cuda");
  if (dtype == Dtype::f32 || cpu::amx_panels(1)) return ok();
  if (dtype != Dtype::bf16)
    return fail(ErrorCode::unsupported, "{} needs a CPU with AMX instructions, which this one lacks; use dtype f32",
                dtype_name(dtype));
  if (cpu::avx512_bf16_panels()) return ok();
  return fail(ErrorCode::unsupported,
              "bf16 needs a CPU with AMX or AVX-512 bf16 instructions, which this one lacks; use dtype f32");
}

std::string_view cpu_matmul_path(Dtype dtype) {
  if (dtype == Dtype::f32) return "f32 SIMD";
  if (dtype == Dtype::tf32) return "";
  if (cpu::amx_panels(1)) {
    if (dtype == Dtype::bf16) return "bf16 AMX, f32 sums";
    return dtype == Dtype::bf16x3 ? "bf16x3 AMX, f32 sums" : "bf16x6 AMX, f32 sums";
  }
  if (dtype == Dtype::bf16 && cpu::avx512_bf16_panels()) return "bf16 AVX-512, f32 sums";
  return "";
}

Dtype cpu_careful(Dtype dtype) {
  if (dtype != Dtype::bf16) return dtype;
  return cpu::amx_panels(2) ? Dtype::bf16x3 : Dtype::f32;
}

}  // namespace rat::kernels
