#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/own_key.h"

namespace rat::kernels::cuda {
namespace {

constexpr int kThreads = 256,
              kWide = 4;  // a thread has so many channels of each half of a head: both of a rotated pair

struct Place {
  int64_t row, h, t, b, stat, first;  // first: of its channels, in rows of D
  bool exists;
  __device__ Place(const RatShape& s, int lanes) {
    const int64_t item = int64_t{blockIdx.x} * (kThreads / lanes) + threadIdx.x / lanes, items = s.rows() * s.heads;
    exists = item < items;
    row = (exists ? item : 0) / s.heads, h = (exists ? item : 0) % s.heads;
    t = row % s.tokens, b = row / s.tokens;
    stat = (b * s.heads + h) * s.tokens + t;
    first = h * s.head_size + threadIdx.x % lanes * kWide;
  }
};

template <int P>
struct Channels {
  float low[kWide], high[kWide];
  __device__ explicit Channels(const bf16* at) {
    load<kWide>(at, low);
    load<kWide>(at + P / 2, high);
  }
  __device__ float dot(const Channels& other) const {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kWide; ++i) sum = fmaf(low[i], other.low[i], fmaf(high[i], other.high[i], sum));
    return sum_over_lanes<P / (2 * kWide)>(sum);
  }
  // factor R^-1 of these, to where a head's row starts.
  __device__ void write(bf16* head, float factor, const float2* turns) const {
    const int channel = threadIdx.x % (P / (2 * kWide)) * kWide;
    float to_low[kWide], to_high[kWide];
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      const float2 turn = turns == nullptr ? make_float2(1.0f, 0.0f) : turns[channel + i];
      const float x = low[i] * factor, y = high[i] * factor;
      to_low[i] = fmaf(y, turn.y, x * turn.x);
      to_high[i] = fmaf(-x, turn.y, y * turn.x);
    }
    store<kWide>(head + channel, to_low);
    store<kWide>(head + channel + P / 2, to_high);
  }
};

template <int P>
__global__ void __launch_bounds__(kThreads) own_key_kernel(OwnKeyArgs a) {
  constexpr int lanes = P / (2 * kWide);
  const Place at(a.shape, lanes);
  const Channels<P> q(a.q + at.row * a.q_stride + at.first), k(a.keys + at.row * a.shape.channels() + at.first);
  const float score = q.dot(k) * rsqrtf(static_cast<float>(P));
  if (at.exists && threadIdx.x % lanes == 0) a.score[at.stat] = score;
}

template <int P>
__global__ void __launch_bounds__(kThreads) own_key_backward_kernel(OwnKeyBackwardArgs a) {
  constexpr int lanes = P / (2 * kWide);
  const OwnKeyArgs& f = a.forward;
  const Place at(f.shape, lanes);
  const int64_t cell = at.row * f.shape.channels() + at.first;
  const float scale = rsqrtf(static_cast<float>(P));
  const Channels<P> q(f.q + at.row * f.q_stride + at.first), k(f.keys + cell), v(f.values + cell),
      grad(a.grad_out + cell);
  const float p = __expf(q.dot(k) * scale - a.lse[at.stat]), d = p * (grad.dot(v) - a.delta[at.stat]) * scale;
  if (!at.exists) return;
  const TokenGradients<bf16>& to = a.gradients;
  const float2* turns = to.rope == nullptr ? nullptr : to.rope + at.t * (P / 2);
  k.write(to.queries.at(at.b, at.h, at.t), d, turns);
  q.write(to.keys.at(at.b, at.h, at.t), d, turns);
  grad.write(to.values.at(at.b, at.h, at.t), p, nullptr);
}

Status check(const char* op, const RatShape& s) {
  RAT_CUDA_TRY(check_shape(op, s));
  if (s.head_size == 64 || s.head_size == 128) return {};
  return refuse("%s: heads of %lld channels; it takes heads of 64 and 128", op, static_cast<long long>(s.head_size));
}

unsigned blocks_of(const RatShape& s) {
  const int64_t together = kThreads / (s.head_size / (2 * kWide));
  return static_cast<unsigned>((s.rows() * s.heads + together - 1) / together);
}

}  // namespace

Status own_key(const OwnKeyArgs& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check("own_key", a.shape));
  if (a.shape.head_size == 64)
    own_key_kernel<64><<<blocks_of(a.shape), kThreads, 0, stream>>>(a);
  else
    own_key_kernel<128><<<blocks_of(a.shape), kThreads, 0, stream>>>(a);
  return launched("own_key");
}

Status own_key_backward(const OwnKeyBackwardArgs& a, cudaStream_t stream) {
  const RatShape& s = a.forward.shape;
  RAT_CUDA_TRY(check("own_key_backward", s));
  if (s.head_size == 64)
    own_key_backward_kernel<64><<<blocks_of(s), kThreads, 0, stream>>>(a);
  else
    own_key_backward_kernel<128><<<blocks_of(s), kThreads, 0, stream>>>(a);
  return launched("own_key_backward");
}

}  // namespace rat::kernels::cuda
