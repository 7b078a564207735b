// A whole RAT layer in one call, for backends that fuse it: what core/sequence_layer.cpp and core/mixers/rat_mixer.cpp
// compose of single ops, with bf16 between them: for training, for prefill, and token by token.
//
//   y = x + W_out( sigmoid(z) * attend( scan( W_in rms_norm(x) ) ) )
//
// Source: Wei et al., RAT, arXiv:2507.04416. Everything between the two f32 residual streams is bf16, sums are f32.
// Shapes: x, y and their gradients (B*T, D) f32 without gaps; weights in the layouts of core/weights.h, the two matrices
//         rounded by round_weights; gradients of weights f32, added to.
// Trap:   `saved` carries what backward needs from one call to the other: rat_layer_saved bytes of the backend's memory.
//         A step's token index is read from the backend's memory, so that a captured step can be replayed; who calls it
//         sees to it that the cache has room for the chunk of that token.
#pragma once

#include <span>

#include "kernels/backend.h"
#include "kernels/base/cache_dtype.h"
#include "kernels/base/rows.h"
#include "kernels/base/stream_gradient.h"

namespace rat::kernels {

struct RatLayerShape {
  int64_t batch = 0, tokens = 0, heads = 0, head_size = 0, groups = 0, chunk_len = 0;
  double rope_base = 0;  // 0: no positions

  int64_t rows() const { return batch * tokens; }
  int64_t channels() const { return heads * head_size; }
};

// What generation goes on from, in the backend's memory.
struct RatLayerCache {
  CacheDtype dtype = CacheDtype::bf16;           // or fp8
  int64_t capacity = 0;                          // chunks
  void *keys = nullptr, *values = nullptr;       // (B, H, capacity, P) of that type: chunk ends, keys rotated
  uint16_t* scales = nullptr;                    // fp8: (B, H, capacity, 2) bf16: of the key's row and of the value's
  float *state_k = nullptr, *state_v = nullptr;  // (B, D) running states
  int32_t* position = nullptr;                   // tokens so far, of every sequence
  void* workspace = nullptr;                     // rat_layer_step_workspace bytes, zero at first
};

struct RatLayerArgs {
  RatLayerShape shape;
  std::span<const float> norm, gate_bias;
  const uint16_t *in_proj = nullptr, *out_proj = nullptr;
  Input x;
  Output y;
  void* saved = nullptr;
  bool residual = true;     // false: y without x
  RatLayerCache cache = {};  // prefill: an empty one is filled, and nothing is kept for backward
};

// One token of each of B sequences; shape.tokens is 1. The cache takes it in, and its position goes on by one.
struct RatLayerStepArgs {
  RatLayerShape shape;
  std::span<const float> norm, gate_bias;
  const uint16_t *in_proj = nullptr, *out_proj = nullptr;
  Input x;   // (B, D)
  Output y;  // (B, D), may be x
  bool residual = true;
  RatLayerCache cache;
};

struct RatLayerBackwardArgs {
  RatLayerArgs forward;
  StreamGradient grad;
  std::span<float> grad_norm, grad_gate_bias, grad_in_proj, grad_out_proj;
};

// Whether the backend fuses a layer of this shape.
[[nodiscard]] bool fuses_rat_layer(const RatLayerShape& shape, const Exec& exec);
std::size_t rat_layer_saved(const RatLayerShape& shape, const Exec& exec);
[[nodiscard]] Status rat_layer(const RatLayerArgs& args, const Exec& exec);
[[nodiscard]] Status rat_layer_backward(const RatLayerBackwardArgs& args, const Exec& exec);
std::size_t rat_layer_step_workspace(const RatLayerShape& shape, int64_t capacity, const Exec& exec);
[[nodiscard]] Status rat_layer_step(const RatLayerStepArgs& args, const Exec& exec);

}  // namespace rat::kernels
