#include "kernels/cuda/quantise.cuh"

namespace rat::kernels::cuda {
namespace {

constexpr int kWarps = 8;

// A warp for each chunk end: its key row, then its value row.
__global__ void __launch_bounds__(kWarps * 32) quantise_kernel(QuantiseArgs a) {
  const int64_t j = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32, h = blockIdx.y, b = blockIdx.z;
  if (j >= a.shape.full_chunks()) return;
  const int P = static_cast<int>(a.shape.head_size);
  const unsigned short key = quantise_row(a.keys.at(b, h, j), a.to_keys.at(b, h, j), P);
  const unsigned short value = quantise_row(a.values.at(b, h, j), a.to_values.at(b, h, j), P);
  if (threadIdx.x % 32 == 0) *a.scales.at(b, h, j) = make_ushort2(key, value);
}

}  // namespace

Status quantise_chunk_ends(const QuantiseArgs& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check_shape("quantise_chunk_ends", a.shape));
  const int64_t chunks = a.shape.full_chunks();
  if (chunks == 0) return {};
  const dim3 grid(static_cast<unsigned>((chunks + kWarps - 1) / kWarps), static_cast<unsigned>(a.shape.heads),
                  static_cast<unsigned>(a.shape.batch));
  quantise_kernel<<<grid, kWarps * 32, 0, stream>>>(a);
  return launched("quantise_chunk_ends");
}

}  // namespace rat::kernels::cuda
