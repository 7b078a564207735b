#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/linear_decode.h"

namespace rat::kernels::cuda {
namespace {

constexpr int kSlices = 16;  // of the features: a thread has 4 columns of every 16th of them
constexpr int kMostQueries = 64;
template <int P>
constexpr int kThreads = kSlices* P / 4;

// A warp has a head: channels lane, lane + 32, ..., so that both of a rotated pair are a lane's own.
template <int P>
struct Channels {
  static constexpr int N = P / 32;
  float x[N] = {};

  __device__ Channels() {}
  __device__ explicit Channels(const bf16* row) {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = to_float(row[i * 32 + threadIdx.x % 32]);
  }
  __device__ void turn_back(const float2* turns) {
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      const float2 turn = turns[i * 32 + threadIdx.x % 32];
      const float low = x[i], high = x[i + N / 2];
      x[i] = fmaf(high, turn.y, low * turn.x);
      x[i + N / 2] = fmaf(-low, turn.y, high * turn.x);
    }
  }
  // softmax(x), then softmax(-x)
  __device__ void write_features(float* to) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sign = half == 0 ? 1.0f : -1.0f;
      float highest = -INFINITY, sum = 0.0f, weight[N];
#pragma unroll
      for (int i = 0; i < N; ++i) highest = fmaxf(highest, sign * x[i]);
      highest = largest_over_lanes(highest);
#pragma unroll
      for (int i = 0; i < N; ++i) sum += weight[i] = __expf(sign * x[i] - highest);
      const float scale = 1.0f / sum_over_lanes(sum);
#pragma unroll
      for (int i = 0; i < N; ++i) to[half * P + i * 32 + threadIdx.x % 32] = weight[i] * scale;
    }
  }
  // n(x) w of this head.
  __device__ void add_normed(const float* weight, float epsilon, float (&to)[N]) const {
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) squares = fmaf(x[i], x[i], squares);
    const float r = rsqrtf(sum_over_lanes(squares) / static_cast<float>(P) + epsilon);
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = fmaf(x[i] * r, weight[i * 32 + threadIdx.x % 32], to[i]);
  }
};

template <int P>
struct Shared {
  float value[P];
  float parts[kSlices][P];   // of one query's result
  float features[1][2 * P];  // of the key that joins, and behind it of the queries
};

// The token that joins the sums: its key's features and its value. A warp for the key, threads for the value.
template <int P, bool kWindow>
__device__ void read_joining(const LinearDecodeArgs& a, Shared<P>& shared, int b, int g) {
  const int64_t KV = a.kv_heads * P, width = a.shape.channels() + 2 * KV;
  const bf16 *value = a.proj + b * width + g * P, *key = value + KV + a.shape.channels();
  const int64_t joins = *a.position - a.ahead - a.shape.window;  // with a window
  if constexpr (kWindow) {
    if (joins < 0) {
      for (int i = threadIdx.x; i < 2 * P; i += kThreads<P>) shared.features[0][i] = 0.0f;
      for (int i = threadIdx.x; i < P; i += kThreads<P>) shared.value[i] = 0.0f;
      return;
    }
    const int64_t row = a.shape.cache_row(joins);
    key = a.keys.at(b, g, row), value = a.values.at(b, g, row);
  }
  for (int i = threadIdx.x; i < P; i += kThreads<P>) shared.value[i] = to_float(value[i]);
  if (threadIdx.x / 32 > 0) return;
  Channels<P> x(key);
  if (kWindow && a.rope != nullptr) x.turn_back(a.rope + joins * (P / 2));
  x.write_features(shared.features[0]);
}

// One warp: the result of a head, normalised, with the window's.
template <int P, bool kWindow>
__device__ void write_head(const LinearDecodeArgs& a, const Shared<P>& shared, int b, int h) {
  constexpr int N = Channels<P>::N;
  const int64_t at = b * a.shape.channels() + h * P;
  float y[N] = {};
  if constexpr (kWindow) Channels<P>(a.near + at).add_normed(a.near_norm + h * P, a.epsilon, y);
  Channels<P> far;
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) far.x[i] += shared.parts[slice][i * 32 + threadIdx.x % 32];
  far.add_normed(a.far_norm + h * P, a.epsilon, y);
#pragma unroll
  for (int i = 0; i < N; ++i) a.y[at + i * 32 + threadIdx.x % 32] = from_float<bf16>(y[i]);
}

template <int P, bool kWindow>
__global__ void __launch_bounds__(kThreads<P>) linear_decode_kernel(const LinearDecodeArgs a) {
  constexpr int rows = 2 * P / kSlices;
  extern __shared__ __align__(16) unsigned char memory[];
  Shared<P>& shared = *reinterpret_cast<Shared<P>*>(memory);
  const int g = static_cast<int>(blockIdx.x), b = static_cast<int>(blockIdx.y), kv = static_cast<int>(a.kv_heads);
  const int warp = threadIdx.x / 32, column = threadIdx.x % (P / 4) * 4, slice = threadIdx.x / (P / 4);
  const int queries = static_cast<int>(a.shape.heads) / kv;
  auto* const of_queries = reinterpret_cast<float(*)[2 * P]>(&shared + 1);
  float* const sums = a.sums + ((int64_t{b} * kv + g) * 2 * P + slice) * P + column;
  float sum[rows][4];  // asked for before the token is known: only a step of this layer writes it
#pragma unroll
  for (int i = 0; i < rows; ++i) load<4>(sums + i * kSlices * P, sum[i]);
  wait_for_previous();
  start_next();
  read_joining<P, kWindow>(a, shared, b, g);
  const bf16* const row = a.proj + b * (a.shape.channels() + 2 * kv * P) + kv * P;
  for (int n = warp; n < queries; n += kThreads<P> / 32)
    Channels<P>(row + (g + n * kv) * P).write_features(of_queries[n]);
  __syncthreads();
  const auto join = [&] {
    float value[4];
    load<4>(&shared.value[column], value);
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(shared.features[0][i * kSlices + slice], value[j], sum[i][j]);
#pragma unroll
    for (int i = 0; i < rows; ++i) store<4>(sums + i * kSlices * P, sum[i]);
  };
  if constexpr (!kWindow) join();
  for (int n = 0; n < queries; ++n) {
    float part[4] = {};
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) part[j] = fmaf(of_queries[n][i * kSlices + slice], sum[i][j], part[j]);
    store<4>(&shared.parts[slice][column], part);
    __syncthreads();
    if (warp == 0) write_head<P, kWindow>(a, shared, b, g + n * kv);
    if (n + 1 < queries) __syncthreads();
  }
  if constexpr (kWindow) join();
}

template <int P, bool kWindow>
Status launch(const LinearDecodeArgs& a, cudaStream_t stream) {
  constexpr auto kernel = linear_decode_kernel<P, kWindow>;
  const int bytes = static_cast<int>(sizeof(Shared<P>) + a.shape.heads / a.kv_heads * 2 * P * sizeof(float));
  RAT_CUDA_TRY(
      checked(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "linear_decode"));
  const dim3 grid(static_cast<unsigned>(a.kv_heads), static_cast<unsigned>(a.shape.batch));
  return launch_early({"linear_decode", grid, kThreads<P>, bytes, stream}, kernel, a);
}

constexpr int kWidened = 256;

__global__ void __launch_bounds__(kWidened) widen_first_tokens_kernel(FirstTokensArgs a, int64_t items) {
  const int64_t item = int64_t{blockIdx.x} * kWidened + threadIdx.x, pieces = a.columns / 8;
  if (item >= items) return;
  const int64_t row = item / pieces, column = item % pieces * 8;
  float values[8];
  load<8>(a.from + (row / a.count * a.tokens + row % a.count) * a.stride + column, values);
  store<8>(a.to + row * a.columns + column, values);
}

}  // namespace

Status linear_decode(const LinearDecodeArgs& a, cudaStream_t stream) {
  const RatShape& s = a.shape;
  RAT_CUDA_TRY(check_shape("linear_decode", s));
  const bool windowed = s.window >= 0;
  if ((s.head_size != 64 && s.head_size != 128) || a.kv_heads < 1 || s.heads % a.kv_heads != 0 ||
      s.heads / a.kv_heads > kMostQueries || (windowed && (a.near == nullptr || a.near_norm == nullptr)))
    return refuse(
        "linear_decode: %lld heads of %lld channels with keys of %lld; it takes heads of 64 or 128 channels, at most "
        "%d "
        "to a key, and with a window what that gave",
        static_cast<long long>(s.heads), static_cast<long long>(s.head_size), static_cast<long long>(a.kv_heads),
        kMostQueries);
  if (s.head_size == 64) return windowed ? launch<64, true>(a, stream) : launch<64, false>(a, stream);
  return windowed ? launch<128, true>(a, stream) : launch<128, false>(a, stream);
}

Status widen_first_tokens(const FirstTokensArgs& a, cudaStream_t stream) {
  if (a.columns % 8 != 0 || a.stride % 8 != 0 || a.count > a.tokens || reinterpret_cast<uintptr_t>(a.from) % 16 != 0)
    return refuse(
        "widen_first_tokens: %lld of %lld tokens, %lld columns of rows %lld elements apart; columns and rows must be "
        "multiples of 8",
        static_cast<long long>(a.count), static_cast<long long>(a.tokens), static_cast<long long>(a.columns),
        static_cast<long long>(a.stride));
  const int64_t items = a.batch * a.count * a.columns / 8;
  if (items == 0) return {};
  widen_first_tokens_kernel<<<static_cast<unsigned>((items + kWidened - 1) / kWidened), kWidened, 0, stream>>>(a,
                                                                                                               items);
  return launched("widen_first_tokens");
}

}  // namespace rat::kernels::cuda
