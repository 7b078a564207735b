// rat_decode for attention over tokens whose heads share keys, in bf16 with a cache of bf16 or e4m3: up to 16 of the heads that
// share a key are the rows of tensor-core products, and what is cached is read once for all of them.
//
//   y[h] = softmax-attend(R(t) q[h] over the keys of tokens [t - W, t) and q[h] . k for the own key);  keys[ring(t)] = R(t) k, ...
//
// Rotated queries and weights are rounded to bf16, as they are where whole sequences go through (chunk_attention); scores,
// sums and the own key's score are float32. Arguments, shapes and traps: kernels/cuda/rat_decode.h, which comes here.
#pragma once

#include "kernels/cuda/rat_decode.h"

namespace rat::kernels::cuda {

// Heads of 64 and 128 that share keys, where a block's shared memory has room for their tiles (of bf16 50 and 101 KiB).
bool group_decode_takes(const RatShape& shape, int64_t kv_heads);

// And whether it is the faster way with `keys` in the cache of each head. A block for each head reads few keys from the L2
// cache again sooner than the softmaxes of a group are joined. `keys` is the room for them, which a recorded step knows: where
// a cache grows past it, the last bits change as they do between batches.
bool group_decode_pays(const RatShape& shape, int64_t kv_heads, int64_t keys);

// As many splits as the device has room for blocks at a time.
int group_decode_splits(const RatShape& shape, int64_t kv_heads, int64_t keys);

// Refused before any launch: what group_decode_takes does not take.
template <class C>  // bf16 or e4m3
Status group_decode(const RatDecodeArgs<__nv_bfloat16, C>& args, cudaStream_t stream);

}  // namespace rat::kernels::cuda
