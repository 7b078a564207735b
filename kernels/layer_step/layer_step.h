// One token of each of B sequences through a whole layer in one call, for backends that fuse it, and the cache that
// generation goes on from: a layer of RAT (kernels/rat_layer), of softmax attention over tokens
// (kernels/attention_layer), of RAttention (kernels/rattention_layer), or an RNN's (kernels/rnn_layer), which fill the
// cache when they prefill.
//
//   y = x + W_out( sigmoid(z) * attend( scan( W_in rms_norm(x) ) ) )      RAT
//   y = x + W_out attend( W_in rms_norm(x) )                              attention over tokens
//   y = x + W_out( sigmoid(o) * attend( scan( W_in rms_norm(x) ) ) )      RAT+: attention over tokens, recurrent
//   y = x + W_out( n(attend(..)) w_near + n(linear(..)) w_far )           RAttention (kernels/rattention_layer), or its
//                                                                         second part alone
//   y = x + W_out( sigmoid(z) * scan( W_in rms_norm(x) ) )                RNN (kernels/rnn_layer)
//
// Everything between the two f32 residual streams is bf16, sums are f32; keys and values are kept in bf16 or fp8.
// Shapes: x, y (B, D) f32; weights in the layouts of core/weights.h, the two matrices rounded by round_weights.
// Trap:   the token's index is read from the backend's memory, so that a captured step can be replayed; who calls it
//         sees to it that the cache has room for that token and angles for its position.
#pragma once

#include <algorithm>
#include <span>

#include "kernels/backend.h"
#include "kernels/base/cache_dtype.h"
#include "kernels/base/dilation.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

struct LayerStepShape {
  int64_t batch = 0, heads = 0, head_size = 0;
  int64_t groups = 0;                 // of RAT's queries and keys; 0: attention over tokens, which has no chunks
  int64_t chunk_len = 1;              // 1 without groups
  int64_t window = -1;                // of attention over tokens: W; below 0: everything earlier
  double rope_base = 0;               // 0: no positions
  bool recurrent = false;             // RAT+
  int64_t dilation = 0, initial = 0;  // D and S of what RAT+ sees before its window; D = 0: not dilated
  int64_t kv_heads = 0;               // that keys and values have, not recurrent, nor of RAT; 0: one for each head
  bool rnn = false;                   // no attention: a head, no rows, a running value
  bool linear = false;  // RAttention: what has left the window goes into sums; without a window everything, and no rows

  bool operator==(const LayerStepShape&) const = default;
  int64_t channels() const { return heads * head_size; }
  int64_t cached_heads() const { return kv_heads > 0 ? kv_heads : heads; }
  bool keeps_rows() const { return !rnn && (!linear || window >= 0); }
  // A cache that does not grow, beside sums as large or without any, would gain little.
  bool takes_fp8() const { return keeps_rows() && !linear; }
  int64_t sum_rows() const { return linear ? batch * cached_heads() * 2 * head_size : 0; }  // of P
  int64_t states() const { return groups > 0 || recurrent ? 2 : rnn ? 1 : 0; }  // running ones of a sequence
  // Rows of each head that the cache must have for the token at `position` (0-based), which may be kept there: chunk
  // ends, or tokens, of which a window keeps W+1 in a ring: token t is row t % (W+1). Dilated, what is seen once it has
  // left the window has rows of its own behind the ring, from when it comes.
  int64_t rows_at(int64_t position) const {
    if (!keeps_rows()) return 0;
    const int64_t rows = position / chunk_len + 1;
    if (dilation > 0) return window + 1 + kept_tokens(rows, dilation, initial);
    return window < 0 || rows <= window ? rows : window + 1;
  }
  // Rows that it holds after `tokens` tokens.
  int64_t rows_after(int64_t tokens) const {
    if (!keeps_rows()) return 0;
    const int64_t rows = tokens / chunk_len;
    return (window < 0 ? rows : std::min(rows, window + 1)) + (dilation > 0 ? kept_tokens(rows, dilation, initial) : 0);
  }
};

// What generation goes on from, in the backend's memory.
struct LayerCache {
  CacheDtype dtype = CacheDtype::bf16;           // or fp8
  int64_t capacity = 0;                          // rows of each head
  int64_t angles = 0;                            // chunks, or tokens, that steps may be at: of the rotation table
  void *keys = nullptr, *values = nullptr;       // (B, cached_heads, capacity, P) of that type: keys rotated
  uint16_t* scales = nullptr;                    // fp8: (.., capacity, 2) bf16: of the key's row and of the value's
  float *state_k = nullptr, *state_v = nullptr;  // (B, D) running states, where there are two, or the latter
  float* sums = nullptr;        // linear: (B, cached_heads, 2 P, P) sum of phi(key)^T value, zeros at first
  int32_t* position = nullptr;  // tokens so far, of every sequence
  void* workspace = nullptr;    // layer_step_workspace bytes, zero at first
};

// The cache takes the token in, and its position goes on by one.
struct LayerStepArgs {
  LayerStepShape shape;
  std::span<const float> norm;
  std::span<const float> gate_bias;            // of RAT and the RNN
  std::span<const float> near_norm, far_norm;  // linear: of the window, where there is one, and of what is older
  const uint16_t *in_proj = nullptr, *out_proj = nullptr;
  Input x;
  Output y;              // may be x
  bool residual = true;  // false: y without x
  LayerCache cache;
};

std::size_t layer_step_workspace(const LayerStepShape& shape, int64_t capacity, const Exec& exec);
[[nodiscard]] Status layer_step(const LayerStepArgs& args, const Exec& exec);

// That a cache that a prefill of `tokens` tokens fills, or a step at 0 goes on from, has all its memory and room.
[[nodiscard]] Status check_cache(const char* op, const LayerStepShape& shape, const LayerCache& cache, int64_t tokens);

}  // namespace rat::kernels
