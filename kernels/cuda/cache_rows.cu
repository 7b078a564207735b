#include "kernels/cuda/cache_rows.h"

#include <type_traits>

#include "kernels/cuda/quantise.cuh"

namespace rat::kernels::cuda {
namespace {

constexpr int kWarps = 8;

// A warp for each row of keys and the row of values beside it.
template <class C>
__global__ void __launch_bounds__(kWarps * 32) fill_cache_kernel(FillCacheArgs<C> a) {
  const int64_t i = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32, h = blockIdx.y, b = blockIdx.z;
  if (i >= a.count) return;
  const int P = static_cast<int>(a.shape.head_size), lane = threadIdx.x % 32;
  const int64_t j = a.first + i, from = a.shape.dilated() ? a.shape.key_token(j) : j, to = a.shape.cache_row(j);
  const bf16 *const key = a.keys.at(b, h, from), *const value = a.values.at(b, h, from);
  C *const to_key = a.to_keys.at(b, h, to), *const to_value = a.to_values.at(b, h, to);
  if constexpr (std::is_same_v<C, e4m3>) {
    const unsigned short of_key = quantise_row(key, to_key, P), of_value = quantise_row(value, to_value, P);
    if (lane == 0) *a.scales.at(b, h, to) = make_ushort2(of_key, of_value);
  } else {
    for (int p = lane; p < P; p += 32) {
      to_key[p] = key[p];
      to_value[p] = value[p];
    }
  }
}

}  // namespace

template <class C>
Status fill_cache(const FillCacheArgs<C>& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check_shape("fill_cache", a.shape));
  if (a.shape.window >= 0 && a.count > a.shape.window + 1)
    return refuse("fill_cache: %lld rows for a window of %lld, which keeps one more than that",
                  static_cast<long long>(a.count), static_cast<long long>(a.shape.window));
  if (a.count == 0) return {};
  const dim3 grid(static_cast<unsigned>((a.count + kWarps - 1) / kWarps), static_cast<unsigned>(a.shape.heads),
                  static_cast<unsigned>(a.shape.batch));
  fill_cache_kernel<C><<<grid, kWarps * 32, 0, stream>>>(a);
  return launched("fill_cache");
}

template Status fill_cache<bf16>(const FillCacheArgs<bf16>&, cudaStream_t);
template Status fill_cache<e4m3>(const FillCacheArgs<e4m3>&, cudaStream_t);

}  // namespace rat::kernels::cuda
