#include "kernels/base/dtype.h"

#include "kernels/matmul/panels.h"

namespace rat::kernels {

std::string_view dtype_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return "f32";
    case Dtype::bf16:
      return "bf16";
    case Dtype::bf16x3:
      return "bf16x3";
  }
  return "";
}

Result<Dtype> parse_dtype(std::string_view name) {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::bf16x3})
    if (name == dtype_name(dtype)) return dtype;
  return fail(ErrorCode::invalid_argument, "dtype is '{}'; it must be f32, bf16 or bf16x3", name);
}

Status cpu_supports(Dtype dtype) {
  if (dtype == Dtype::f32 || cpu::amx_bf16_panels()) return ok();
  if (dtype == Dtype::bf16x3)
    return fail(ErrorCode::unsupported, "bf16x3 needs a CPU with AMX instructions, which this one lacks; use dtype f32");
  if (cpu::avx512_bf16_panels()) return ok();
  return fail(ErrorCode::unsupported,
              "bf16 needs a CPU with AMX or AVX-512 bf16 instructions, which this one lacks; use dtype f32");
}

std::string_view cpu_matmul_path(Dtype dtype) {
  if (dtype == Dtype::f32) return "f32 SIMD";
  if (cpu::amx_bf16_panels()) return dtype == Dtype::bf16 ? "bf16 AMX, f32 sums" : "bf16x3 AMX, f32 sums";
  if (dtype == Dtype::bf16 && cpu::avx512_bf16_panels()) return "bf16 AVX-512, f32 sums";
  return "";
}

Dtype cpu_careful(Dtype dtype) {
  if (dtype != Dtype::bf16) return dtype;
  return cpu::amx_bf16x3_panels() ? Dtype::bf16x3 : Dtype::f32;
}

}  // namespace rat::kernels
