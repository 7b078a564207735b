#include "kernels/cuda/gate_product.h"

#include <cuda_bf16.h>

#include <type_traits>

#include "kernels/cuda/capability.h"
#include "kernels/cuda/projection.h"

namespace rat::kernels::cuda {

template <class T>
GatePath best_gate_path(const RatShape& s) {
#if defined(RAT_CUDA_HOPPER)
  if (std::is_same_v<T, __nv_bfloat16> && (s.head_size == 64 || s.head_size == 128) && device_capability() == 90)
    return GatePath::fused;
#else
  static_cast<void>(s);
#endif
  return GatePath::separate;
}

template <class T>
Status gate_product_backward(const GateProductBackwardArgs<T>& a, GatePath path, Gemm& gemm, cudaStream_t stream) {
  const RatShape& s = a.shape;
  RAT_CUDA_TRY(check_shape("gate_product_backward", s));
  if (path == GatePath::fused && best_gate_path<T>(s) != GatePath::fused)
    return refuse("gate_product_backward: the fused path needs bf16, heads of 64 or 128, compute capability 9.0 and a build "
                  "with architecture 90a; use the separate path");
#if defined(RAT_CUDA_HOPPER)
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    if (path == GatePath::fused) return paths::wgmma_gate_product_backward(a, stream);
#endif
  RAT_CUDA_TRY(project_input_gradient<T>(gemm, a.grad, a.weight, a.grad_out, s.rows(), s.channels(), s.channels(), stream));
  return output_gate_backward<T>({s, a.grad_out, a.y, a.z, a.z_stride, a.grad_out, a.grad_z, a.grad_z_stride, a.delta}, stream);
}

template GatePath best_gate_path<float>(const RatShape&);
template GatePath best_gate_path<__nv_bfloat16>(const RatShape&);
template Status gate_product_backward<float>(const GateProductBackwardArgs<float>&, GatePath, Gemm&, cudaStream_t);
template Status gate_product_backward<__nv_bfloat16>(const GateProductBackwardArgs<__nv_bfloat16>&, GatePath, Gemm&,
                                                     cudaStream_t);

}  // namespace rat::kernels::cuda
