// One token of every sequence through a layer between its two projections, in one kernel. RAT: running state, RoPE,
// attention over the cached chunk ends and the own key, output gate, and at a chunk's last token the append to the cache.
//
//   c = position / L, l = position % L;  k~ = gate k~ + (1 - gate) k (from 0 when l = 0), v~ likewise
//   y = sigmoid(z) softmax-attend(R(c) q over keys[0, c) and q . k~ for the own key);  l = L-1: keys[c] = R(c) k~, ...
//
// Attention over tokens (a shape with offset 1): t = position, W the window or t
//   y = softmax-attend(R(t) q over the keys of tokens [t - W, t) and q . k for the own key);  keys[ring(t)] = R(t) k, ...
// The ring has a row more than the window, so that the row that is written is none that this step reads. Keys and values may
// be shared: head h has those of head h % kv_heads, which alone are cached.
//
// RAT+ (attention over tokens, recurrent): k~, v~ as above, from 0 at the first token alone, without a bias; R(t) k~ and v~
// are what is cached, and y has the output gate. Dilated, what `before` says of the tokens before the window is seen as well,
// in rows W + 1, .. of the cache, each of which its token takes when it comes, as it takes its row of the ring.
//
// Shapes: proj (B, projected()), columns of RAT as in kernels/cuda/shape.h, of attention v (KV) | q (D) | k (KV), of RAT+
//         o | q | k | v | g (D each); states (B, D) float32, of RAT and RAT+; keys, values: capacity rows per head; y (B, D); rope (angles, P/2) or null; position: one int32 on the device, the same for all sequences, so
//         that a captured graph can be replayed while it advances.
// C, the cache's type: T, or e4m3 with a scale per row (kernels/cuda/quantise.h), which multiplies the row's score or
// weight once. Running states and the own key are never quantised. Products with rows of e4m3 are of halves, scaled so that
// none overflows: a few keys, or channels, are added in half precision, everything else in float32.
// Keys are split over several blocks when batch and heads are few; the last block to finish joins the parts in order, so
// results do not depend on timing. Heads of 64 and 128 that share many keys go to group_decode.h, of e4m3
// where more than two share them. Refused before any launch: head sizes that are not a power of two from 2 to 256,
// with e4m3 from 16; splits outside [1, 64]; splits above 1 without a workspace; e4m3 without scales; attention over tokens
// in float32; shared keys of RAT or RAT+.
// Trap: a position whose row is outside the cache or whose angle is outside the table: the kernel then writes NaN to y and
//       nothing else.
#pragma once

#include "kernels/cuda/quantise.h"
#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

inline constexpr int64_t kKeysOfSplit = 32;
inline constexpr int kMostSplits = 64;

template <class T, class C = T>
struct RatDecodeArgs {
  RatShape shape;  // tokens is not used
  bool recurrent = false;
  RatShape before;       // of before_window, recurrent; a shape without it: not dilated
  int64_t kv_heads = 0;  // of attention over tokens; 0: one for each head
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

  RAT_HD int64_t key_heads() const { return kv_heads > 0 ? kv_heads : shape.heads; }
  RAT_HD int64_t projected() const {
    if (!shape.over_tokens()) return shape.proj_width();
    return recurrent ? 5 * shape.channels() : shape.channels() + 2 * key_heads() * shape.head_size;
  }
};

// Enough blocks to fill the device when `keys` rows are cached, and at least kKeysOfSplit for each. kv_heads: as in the
// arguments.
int rat_decode_splits(const RatShape& shape, int64_t keys, int64_t kv_heads = 0);
std::size_t rat_decode_workspace(const RatShape& shape, int splits);  // bytes

template <class T, class C = T>
Status rat_decode(const RatDecodeArgs<T, C>& args, cudaStream_t stream);

// *position += tokens, after a prefill.
Status advance_position(int32_t* position, cudaStream_t stream, int32_t tokens = 1);

}  // namespace rat::kernels::cuda
