// One token of every sequence through a layer between its two projections, in one kernel. RAT: running state, RoPE,
// attention over the cached chunk ends and the own key, output gate, and at a chunk's last token the append to the cache.
//
//   c = position / L, l = position % L;  k~ = gate k~ + (1 - gate) k (from 0 when l = 0), v~ likewise
//   y = sigmoid(z) softmax-attend(R(c) q over keys[0, c) and q . k~ for the own key);  l = L-1: keys[c] = R(c) k~, ...
//
// Attention over tokens (a shape with offset 1): t = position, W the window or t
//   y = softmax-attend(R(t) q over the keys of tokens [t - W, t) and q . k for the own key);  keys[ring(t)] = R(t) k, ...
// The ring has a row more than the window, so that the row that is written is none that this step reads.
//
// Shapes: proj (B, projected()) as in kernels/cuda/shape.h; states (B, D) float32, of RAT; keys, values: capacity rows per
//         head; y (B, D); rope (angles, P/2) or null; position: one int32 on the device, the same for all sequences, so
//         that a captured graph can be replayed while it advances.
// C, the cache's type: T, or e4m3 with a scale per row (kernels/cuda/quantise.h), which multiplies the row's score or
// weight once. Running states and the own key are never quantised. Products with rows of e4m3 are of halves, scaled so that
// none overflows: a few keys, or channels, are added in half precision, everything else in float32.
// Keys are split over several blocks when batch and heads are few; the last block to finish joins the parts in order, so
// results do not depend on timing. Refused before any launch: head sizes that are not a power of two from 2 to 256,
// with e4m3 from 16; splits outside [1, 64]; splits above 1 without a workspace; e4m3 without scales; attention over tokens
// in float32.
// Trap: a position whose row is outside the cache or whose angle is outside the table: the kernel then writes NaN to y and
//       nothing else.
#pragma once

#include "kernels/cuda/quantise.h"
#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

inline constexpr int64_t kKeysOfSplit = 32;

template <class T, class C = T>
struct RatDecodeArgs {
  RatShape shape;  // tokens is not used
  int64_t capacity = 0;  // rows of the cache
  int64_t angles = 0;    // rows of the rotation table
  const int32_t* position = nullptr;
  int32_t ahead = 0;   // by how much *position is beyond the token's: 1 where the step's first kernel has counted it already
  bool early = false;  // kernels/cuda/early_launch.cuh: what comes just before it writes neither the cache nor *position
  const T* proj = nullptr;
  int64_t proj_stride = 0;
  const float* gate_bias = nullptr;
  const float2* rope = nullptr;
  float* state_k = nullptr;
  float* state_v = nullptr;
  KeyRows<C> keys, values;
  KeyRows<ushort2> scales;  // of e4m3
  T* y = nullptr;
  int splits = 1;  // at most: fewer where there are not keys_of_split keys for each
  int64_t keys_of_split = kKeysOfSplit;
  float* workspace = nullptr;  // rat_decode_workspace bytes, zeroed once before the first call
};

// Enough blocks to fill the device when `keys` rows are cached, and at least kKeysOfSplit for each.
int rat_decode_splits(const RatShape& shape, int64_t keys);
std::size_t rat_decode_workspace(const RatShape& shape, int splits);  // bytes

template <class T, class C = T>
Status rat_decode(const RatDecodeArgs<T, C>& args, cudaStream_t stream);

// *position += tokens, after a prefill.
Status advance_position(int32_t* position, cudaStream_t stream, int32_t tokens = 1);

}  // namespace rat::kernels::cuda
