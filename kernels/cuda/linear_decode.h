// One token of every sequence through linear attention and the norms of heads behind it: the end of a step of
// RAttention, whose window rat_decode has attended to, or of linear attention alone.
//
//   far = phi(q) S;  S += phi(k[j])^T v[j];  y = n(near) w_near + n(far) w_far      RAttention, j = t - W
//   S += phi(k[t])^T v[t];  far = phi(q) S;  y = n(far) w_far                       alone
//
// So S has, before a step at t, the tokens up to t - W - 1, or t - 1. phi(x) = [softmax(x), softmax(-x)]; n:
// kernels/cuda/head_norms.h. The key that joins is the oldest one in the ring, rotated back; before there is one, none
// joins.
// Source: Wang et al., RAttention, arXiv:2506.15545.
// Shapes: proj (B, D + 2 KV), columns v | q | k; sums (B, kv_heads, 2 P, P) float32, zeros at first; head h reads those
//         of head h % kv_heads; near, y (B, D). Sums are made in an order that does not depend on timing.
// Refused before any launch: head sizes other than 64 and 128; more than 64 heads to a key.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

struct LinearDecodeArgs {
  RatShape shape;  // of attention over tokens; tokens is not used; a window below 0: linear attention alone
  int64_t kv_heads = 0;
  const int32_t* position = nullptr;
  int32_t ahead = 0;  // as of RatDecodeArgs
  const __nv_bfloat16* proj = nullptr;
  float* sums = nullptr;
  const float *near_norm = nullptr, *far_norm = nullptr;  // (D); the first with a window
  float epsilon = 1e-8f;
  KeyRows<const __nv_bfloat16> keys{}, values{};  // with a window: of the cache, which has this token
  const float2* rope = nullptr;               // of the cached keys, null: no positions
  const __nv_bfloat16* near = nullptr;        // with a window; may be y
  __nv_bfloat16* y = nullptr;
};

Status linear_decode(const LinearDecodeArgs& args, cudaStream_t stream);

// The first `count` tokens of every sequence: columns of proj's rows to float32 without gaps, to (B * count, columns).
struct FirstTokensArgs {
  int64_t batch = 0, tokens = 0, count = 0, columns = 0, stride = 0;  // columns, stride: multiples of 8
  const __nv_bfloat16* from = nullptr;  // (B * tokens, columns), rows `stride` elements apart
  float* to = nullptr;
};
Status widen_first_tokens(const FirstTokensArgs& args, cudaStream_t stream);

}  // namespace rat::kernels::cuda
