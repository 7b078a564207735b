// What prefill and steps of fused layers share on the device: the cache as the kernels take it.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/cache_rows.h"
#include "kernels/cuda/shape.h"
#include "kernels/layer_step/layer_step.h"

namespace rat::kernels::gpu {

// Heads that the fused layers take here. Asked for every layer of every step of decoding: the device is only asked
// once.
bool on_tensor_cores(int64_t head_size);

template <class C>
struct CacheRows {
  cuda::KeyRows<C> keys, values;
};
template <class C>
CacheRows<C> cache_rows(const cuda::RatShape& shape, const LayerCache& cache) {
  return {cuda::head_major(static_cast<C*>(cache.keys), shape, cache.capacity),
          cuda::head_major(static_cast<C*>(cache.values), shape, cache.capacity)};
}
inline cuda::KeyRows<ushort2> scale_rows(const cuda::RatShape& shape, const LayerCache& cache) {
  return cuda::scale_pairs(reinterpret_cast<ushort2*>(cache.scales), shape, cache.capacity);
}

// Rows [first, first + count) of a prefill into the cache, whose heads are those of the shape.
Status keep_rows(const cuda::RatShape& shape, const cuda::KeyRows<const __nv_bfloat16>& keys,
                 const cuda::KeyRows<const __nv_bfloat16>& values, int64_t first, int64_t count,
                 const LayerCache& cache);

}  // namespace rat::kernels::gpu
