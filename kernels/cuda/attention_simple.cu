// The obvious algorithm: one warp per query row forwards, one per query row and one per key row backwards, dot products
// over the lanes. Slow, any head size, float32 arithmetic: what the tensor-core paths are compared with on the device.
#include "kernels/cuda/attention_paths.h"
#include "kernels/cuda/keys_seen.cuh"

namespace rat::kernels::cuda::paths {
namespace {

constexpr int kWarps = 4;
constexpr int kSlots = 8;  // channels per lane for head sizes up to 256

// Channels lane, lane + 32, ... of a row of P values.
template <class T>
struct LaneRow {
  float v[kSlots];
  __device__ static LaneRow zero() {
    LaneRow row;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) row.v[i] = 0.0f;
    return row;
  }
  __device__ static LaneRow read(const T* at, int P) {
    LaneRow row;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const int c = i * 32 + threadIdx.x % 32;
      row.v[i] = c < P ? to_float(at[c]) : 0.0f;
    }
    return row;
  }
  template <class Out>
  __device__ void write(Out* at, int P) const {
#pragma unroll
    for (int i = 0; i < kSlots; ++i)
      if (const int c = i * 32 + threadIdx.x % 32; c < P) at[c] = from_float<Out>(v[i]);
  }
  // Turns the channel pairs (i, i + P/2) back by their angles. P/2 is a whole number of slots, or one slot holds all.
  __device__ void turn_back(const float2* turns, int P) {
    const int half = P / 2;
    LaneRow turned;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const int c = i * 32 + threadIdx.x % 32;
      const bool low = c < half;
      const float across = __shfl_sync(0xffffffffu, v[0], (low ? c + half : c - half) & 31);
      const float other = P == 256 ? v[i ^ 4] : P == 128 ? v[i ^ 2] : P == 64 ? v[i ^ 1] : across;
      const float2 turn = c < P ? turns[low ? c : c - half] : make_float2(1.0f, 0.0f);
      turned.v[i] = fmaf(low ? turn.y : -turn.y, other, turn.x * v[i]);
    }
    *this = turned;
  }
  __device__ float dot(const LaneRow& other) const {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) sum = fmaf(v[i], other.v[i], sum);
    return sum_over_lanes(sum);
  }
  __device__ void scale_add(float scale, float factor, const LaneRow& other) {
#pragma unroll
    for (int i = 0; i < kSlots; ++i) v[i] = fmaf(factor, other.v[i], v[i] * scale);
  }
};

template <class T, class Seen>
__global__ void __launch_bounds__(kWarps * 32) forward_kernel(ChunkAttentionArgs<T> a, int64_t queries) {
  const RatShape& s = a.shape;
  const Seen seen(s);
  const int64_t query = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (query >= queries) return;
  const int P = static_cast<int>(s.head_size);
  const int64_t h = query % s.heads, row = query / s.heads, b = row / s.tokens;
  const int t = static_cast<int>(row % s.tokens);
  const auto q = LaneRow<T>::read(a.q_rot + row * a.query_stride() + h % s.groups * P, P);
  const float scale = rsqrtf(static_cast<float>(P));
  float highest = kLowest, sum = 0.0f;
  auto out = LaneRow<T>::zero();
  if constexpr (Seen::own_key) {
    highest = a.own_score[Seen::own_score(s, static_cast<int>(b), t, static_cast<int>(h))];
    sum = 1.0f;
    out = LaneRow<T>::read(a.own_v + row * s.channels() + h * P, P);
  }
  for (int j = seen.begin(t); j < seen.end(t); ++j) {
    const float score = q.dot(LaneRow<T>::read(a.keys.at(b, h, j), P)) * scale;
    const float top = fmaxf(highest, score), shrink = expf(highest - top), weight = expf(score - top);
    out.scale_add(shrink, weight, LaneRow<T>::read(a.values.at(b, h, j), P));
    sum = fmaf(sum, shrink, weight);
    highest = top;
  }
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    out.v[i] /= sum;
    const int c = i * 32 + threadIdx.x % 32;
    if (Seen::own_key && c < P) out.v[i] *= sigmoid<T>(to_float(a.z[row * a.z_stride + h * P + c]));
  }
  out.write(a.y + row * s.channels() + h * P, P);
  if (a.lse != nullptr && threadIdx.x % 32 == 0) a.lse[(b * s.heads + h) * s.tokens + t] = highest + logf(sum);
}

template <class T, class Seen>
__global__ void __launch_bounds__(kWarps * 32) query_gradient_kernel(ChunkAttentionBackwardArgs<T> a, int64_t queries) {
  const RatShape& s = a.shape;
  const Seen seen(s);
  const int64_t query = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (query >= queries) return;
  const int P = static_cast<int>(s.head_size);
  const int64_t group = query % s.groups, row = query / s.groups, b = row / s.tokens;
  const int t = static_cast<int>(row % s.tokens);
  const auto q = LaneRow<T>::read(a.q_rot + row * a.query_stride() + group * P, P);
  const float scale = rsqrtf(static_cast<float>(P));
  auto grad_q = LaneRow<T>::zero();
  for (int64_t h = group; h < s.heads; h += s.groups) {
    const auto grad = LaneRow<T>::read(a.grad_out + row * s.channels() + h * P, P);
    const int64_t at = (b * s.heads + h) * s.tokens + t;
    const float lse = a.lse[at], delta = a.delta[at];
    for (int j = seen.begin(t); j < seen.end(t); ++j) {
      const auto key = LaneRow<T>::read(a.keys.at(b, h, j), P);
      const float p = expf(q.dot(key) * scale - lse);
      const float grad_p = grad.dot(LaneRow<T>::read(a.values.at(b, h, j), P));
      grad_q.scale_add(1.0f, p * (grad_p - delta) * scale, key);
    }
  }
  if constexpr (Seen::own_key) {
    grad_q.write(a.grad_q_rot + row * s.group_width() + group * P, P);
  } else {
    if (a.token_gradients.rope != nullptr) grad_q.turn_back(a.token_gradients.rope + int64_t{t} * (P / 2), P);
    grad_q.write(a.token_gradients.queries.at(b, group, t), P);
  }
}

template <class T, class Seen>
__global__ void __launch_bounds__(kWarps * 32) key_gradient_kernel(ChunkAttentionBackwardArgs<T> a, int64_t key_rows) {
  const RatShape& s = a.shape;
  const Seen seen(s);
  const int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (item >= key_rows) return;
  const int P = static_cast<int>(s.head_size), j = static_cast<int>(item % s.keys());
  const int64_t h = item / s.keys() % s.heads, b = item / s.keys() / s.heads;
  const auto key = LaneRow<T>::read(a.keys.at(b, h, j), P);
  const auto value = LaneRow<T>::read(a.values.at(b, h, j), P);
  const float scale = rsqrtf(static_cast<float>(P));
  auto grad_key = LaneRow<T>::zero(), grad_value = LaneRow<T>::zero();
  for (int t = seen.first_token(j); t < seen.end_token(j); ++t) {
    const int64_t row = b * s.tokens + t, at = (b * s.heads + h) * s.tokens + t;
    const auto q = LaneRow<T>::read(a.q_rot + row * a.query_stride() + h % s.groups * P, P);
    const auto grad = LaneRow<T>::read(a.grad_out + row * s.channels() + h * P, P);
    const float p = expf(q.dot(key) * scale - a.lse[at]);
    grad_value.scale_add(1.0f, p, grad);
    grad_key.scale_add(1.0f, p * (grad.dot(value) - a.delta[at]) * scale, q);
  }
  if constexpr (Seen::own_key) {
    grad_key.write(a.grad_keys.at(b, h, j), P);
    grad_value.write(a.grad_values.at(b, h, j), P);
  } else {
    const TokenGradients<T>& to = a.token_gradients;
    if (to.rope != nullptr) grad_key.turn_back(to.rope + int64_t{j} * (P / 2), P);
    grad_key.write(to.keys.at(b, h, j), P);
    grad_value.write(to.values.at(b, h, j), P);
  }
}

unsigned blocks_for(int64_t items) { return static_cast<unsigned>((items + kWarps - 1) / kWarps); }

template <class T, class Seen>
Status launch(const ChunkAttentionArgs<T>& a, cudaStream_t stream) {
  const int64_t queries = a.shape.rows() * a.shape.heads;
  forward_kernel<T, Seen><<<blocks_for(queries), kWarps * 32, 0, stream>>>(a, queries);
  return launched("chunk_attention (simple)");
}

template <class T, class Seen>
Status launch(const ChunkAttentionBackwardArgs<T>& a, cudaStream_t stream) {
  const int64_t queries = a.shape.rows() * a.shape.groups;
  query_gradient_kernel<T, Seen><<<blocks_for(queries), kWarps * 32, 0, stream>>>(a, queries);
  RAT_CUDA_TRY(launched("chunk_attention_backward (simple, queries)"));
  const int64_t key_rows = a.shape.batch * a.shape.heads * a.shape.keys();
  if (key_rows == 0) return {};
  key_gradient_kernel<T, Seen><<<blocks_for(key_rows), kWarps * 32, 0, stream>>>(a, key_rows);
  return launched("chunk_attention_backward (simple, keys)");
}

}  // namespace

template <class T>
Status simple_forward(const ChunkAttentionArgs<T>& a, cudaStream_t stream) {
  return with_keys_seen(a.shape, [&](auto seen) { return launch<T, typename decltype(seen)::Type>(a, stream); });
}

template <class T>
Status simple_backward(const ChunkAttentionBackwardArgs<T>& a, cudaStream_t stream) {
  return with_keys_seen(a.shape, [&](auto seen) { return launch<T, typename decltype(seen)::Type>(a, stream); });
}

template Status simple_forward<float>(const ChunkAttentionArgs<float>&, cudaStream_t);
template Status simple_forward<bf16>(const ChunkAttentionArgs<bf16>&, cudaStream_t);
template Status simple_backward<float>(const ChunkAttentionBackwardArgs<float>&, cudaStream_t);
template Status simple_backward<bf16>(const ChunkAttentionBackwardArgs<bf16>&, cudaStream_t);

}  // namespace rat::kernels::cuda::paths
