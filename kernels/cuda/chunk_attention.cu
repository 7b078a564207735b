// Checks, the choice of a path, and the output gate's gradient.
#include "kernels/cuda/chunk_attention.h"

#include <type_traits>

#include "kernels/cuda/attention_paths.h"
#include "kernels/cuda/capability.h"

namespace rat::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) output_gate_kernel(OutputGateArgs a, int64_t items) {
  constexpr int N = 8;
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= items) return;
  const int64_t pieces = a.shape.channels() / N, row = item / pieces, column = item % pieces * N;
  float y[N], z[N];
  load<N>(a.y + row * a.shape.channels() + column, y);
  load<N>(a.z + row * a.z_stride + column, z);
#pragma unroll
  for (int i = 0; i < N; ++i) y[i] *= sigmoid<bf16>(z[i]);
  store<N>(a.y + row * a.shape.channels() + column, y);
}

// `Lanes` lanes per row and head.
template <class T, int N, int Lanes>
__global__ void __launch_bounds__(kThreads) output_gate_backward_kernel(OutputGateBackwardArgs<T> a, int64_t items) {
  const RatShape& s = a.shape;
  const int64_t item = int64_t{blockIdx.x} * (kThreads / Lanes) + threadIdx.x / Lanes;
  if (item >= items) return;
  const int lane = threadIdx.x % Lanes, P = static_cast<int>(s.head_size);
  const int64_t h = item % s.heads, row = item / s.heads;
  const int64_t at = row * s.channels() + h * P + lane * N, z_column = h * P + lane * N;
  float dot = 0.0f;
  if (lane * N < P) {
    float grad_y[N], y[N], z[N], grad_z[N];
    load<N>(a.grad_y + at, grad_y);
    load<N>(a.y + at, y);
#pragma unroll
    for (int i = 0; i < N; ++i) dot = fmaf(grad_y[i], y[i], dot);
    if (a.z != nullptr) {
      load<N>(a.z + row * a.z_stride + z_column, z);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float open = sigmoid<T>(z[i]);
        grad_z[i] = grad_y[i] * y[i] * (1.0f - open);
        grad_y[i] *= open;
      }
      store<N>(a.grad_out + at, grad_y);
      store<N>(a.grad_z + row * a.grad_z_stride + z_column, grad_z);
    }
  }
  dot = sum_over_lanes<Lanes>(dot);
  if (lane == 0) a.delta[(row / s.tokens * s.heads + h) * s.tokens + row % s.tokens] = dot;
}

template <class T, int N, int Lanes>
Status launch_output_gate_backward(const OutputGateBackwardArgs<T>& a, cudaStream_t stream) {
  constexpr int together = kThreads / Lanes;
  const int64_t items = a.shape.rows() * a.shape.heads;
  const auto blocks = static_cast<unsigned>((items + together - 1) / together);
  output_gate_backward_kernel<T, N, Lanes><<<blocks, kThreads, 0, stream>>>(a, items);
  return launched("output_gate_backward");
}

template <class T>
Status check_path(const char* op, AttentionPath path, const RatShape& shape) {
  RAT_CUDA_TRY(check_shape(op, shape));
  const std::string problem = path_problem<T>(path, shape.head_size);
  if (!problem.empty()) return refuse("%s: %s", op, problem.c_str());
  return {};
}

Status check_keys_seen(const char* op, const RatShape& s) {
  if (s.offset == 0 && s.window < 0 && !s.dilated()) return {};
  if (s.offset <= 0 && s.window < 0 && s.dilated() && s.groups == s.heads) return {};
  if (s.offset == 1 && s.chunk_len == 1 && !s.dilated()) return {};
  return refuse("%s: offset %lld and window %lld with chunk length %lld and %lld initial tokens; attention over tokens has "
                "offset 1, chunks of 1; what is before a window has no offset above 0, and a key for each head",
                op, static_cast<long long>(s.offset), static_cast<long long>(s.window), static_cast<long long>(s.chunk_len),
                static_cast<long long>(s.initial));
}

template <class T>
Status check_key_rows(const char* op, const char* name, const KeyRows<T>& rows) {
  constexpr int64_t step = 16 / static_cast<int64_t>(sizeof(T));
  if (reinterpret_cast<uintptr_t>(rows.data) % 16 != 0 || rows.row % step != 0 || rows.head % step != 0 ||
      rows.sequence % step != 0)
    return refuse("%s: %s must start at multiples of 16 bytes; its strides are %lld, %lld, %lld elements", op, name,
                  static_cast<long long>(rows.sequence), static_cast<long long>(rows.head),
                  static_cast<long long>(rows.row));
  return {};
}

// The tensor-core paths copy 16 bytes at a time.
template <class Args>
Status check_rows(const char* op, AttentionPath path, const Args& a) {
  if (path == AttentionPath::simple) return {};
  KeyRows<std::remove_pointer_t<decltype(a.q_rot)>> queries;
  queries.data = a.q_rot, queries.row = a.query_stride();
  RAT_CUDA_TRY(check_key_rows(op, "queries", queries));
  RAT_CUDA_TRY(check_key_rows(op, "keys", a.keys));
  return check_key_rows(op, "values", a.values);
}

}  // namespace

const char* path_name(AttentionPath path) {
  switch (path) {
    case AttentionPath::simple: return "simple";
    case AttentionPath::mma: return "mma";
    case AttentionPath::wgmma: return "wgmma";
  }
  return "unknown";
}

template <class T>
std::string path_problem(AttentionPath path, int64_t head_size) {
  if (path == AttentionPath::simple) return "";
  if (!std::is_same_v<T, bf16>) return std::string("the ") + path_name(path) + " path takes bf16; use the simple path";
  const int capability = device_capability();
  if (head_size != 64 && head_size != 128)
    return std::string("the ") + path_name(path) + " path takes head size 64 or 128, not " + std::to_string(head_size);
  if (path == AttentionPath::mma) {
    if (capability < 80) return "the mma path needs compute capability 8.0, this device has " + std::to_string(capability);
    return "";
  }
#if defined(RAT_CUDA_HOPPER)
  if (capability != 90) return "the wgmma path needs compute capability 9.0, this device has " + std::to_string(capability);
  return "";
#else
  return "this build has no wgmma path; build with architecture 90a";
#endif
}

template <class T>
AttentionPath best_path(int64_t head_size) {
  for (const AttentionPath path : {AttentionPath::wgmma, AttentionPath::mma})
    if (path_problem<T>(path, head_size).empty()) return path;
  return AttentionPath::simple;
}

template <class T>
AttentionPath best_backward_path(const RatShape& s) {
  constexpr int64_t few_tokens = 64;
  const bool short_rows = s.over_tokens() && s.head_size == 64 && s.tokens <= few_tokens;
  return short_rows && path_problem<T>(AttentionPath::mma, s.head_size).empty() ? AttentionPath::mma : best_path<T>(s.head_size);
}

template <class T>
Status chunk_attention(const ChunkAttentionArgs<T>& a, AttentionPath path, cudaStream_t stream) {
  constexpr const char* op = "chunk_attention";
  RAT_CUDA_TRY(check_path<T>(op, path, a.shape));
  RAT_CUDA_TRY(check_rows(op, path, a));
  RAT_CUDA_TRY(check_keys_seen(op, a.shape));
  const bool all = a.own_score != nullptr && a.own_v != nullptr && a.z != nullptr;
  const bool none = a.own_score == nullptr && a.own_v == nullptr && a.z == nullptr;
  if (!(a.shape.over_tokens() ? none : all))
    return refuse("%s: offset %lld %s own keys, own values and output gates", op, static_cast<long long>(a.shape.offset),
                  a.shape.over_tokens() ? "takes no" : "needs");
  if (path == AttentionPath::simple) return paths::simple_forward<T>(a, stream);
  if constexpr (std::is_same_v<T, bf16>) {
#if defined(RAT_CUDA_HOPPER)
    if (path == AttentionPath::wgmma) return paths::wgmma_forward(a, stream);
#endif
    return paths::mma_forward(a, stream);
  }
  return refuse("%s: no path", op);
}

template <class T>
Status chunk_attention_backward(const ChunkAttentionBackwardArgs<T>& a, AttentionPath path, cudaStream_t stream) {
  constexpr const char* op = "chunk_attention_backward";
  RAT_CUDA_TRY(check_path<T>(op, path, a.shape));
  RAT_CUDA_TRY(check_rows(op, path, a));
  RAT_CUDA_TRY(check_keys_seen(op, a.shape));
  const bool sums_in_memory = !a.shape.over_tokens() || path == AttentionPath::wgmma;
  if (sums_in_memory && (a.turns == nullptr || a.grad_q_rot == nullptr))
    return refuse("%s: keys of chunks, and the wgmma path, need memory for the queries' gradients and for the turns", op);
  if (path == AttentionPath::simple) return paths::simple_backward<T>(a, stream);
  if constexpr (std::is_same_v<T, bf16>) {
#if defined(RAT_CUDA_HOPPER)
    if (path == AttentionPath::wgmma) return paths::wgmma_backward(a, stream);
#endif
    return paths::mma_backward(a, stream);
  }
  return refuse("%s: no path", op);
}

Status output_gate(const OutputGateArgs& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check_shape("output_gate", a.shape));
  const int64_t D = a.shape.channels();
  if (D % 8 != 0 || a.z_stride % 8 != 0)
    return refuse("output_gate: %lld columns of rows %lld elements apart; both must be multiples of 8",
                  static_cast<long long>(D), static_cast<long long>(a.z_stride));
  const int64_t items = a.shape.rows() * D / 8;
  output_gate_kernel<<<static_cast<unsigned>((items + kThreads - 1) / kThreads), kThreads, 0, stream>>>(a, items);
  return launched("output_gate");
}

template <class T>
Status output_gate_backward(const OutputGateBackwardArgs<T>& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check_shape("output_gate_backward", a.shape));
  switch (a.shape.head_size) {
    case 64: return launch_output_gate_backward<T, 8, 8>(a, stream);
    case 128: return launch_output_gate_backward<T, 8, 16>(a, stream);
    case 256: return launch_output_gate_backward<T, 8, 32>(a, stream);
    default: return launch_output_gate_backward<T, 1, 32>(a, stream);
  }
}

#define RAT_INSTANTIATE(T)                                                                                  \
  template std::string path_problem<T>(AttentionPath, int64_t);                                             \
  template AttentionPath best_path<T>(int64_t);                                                             \
  template AttentionPath best_backward_path<T>(const RatShape&);                                            \
  template Status chunk_attention<T>(const ChunkAttentionArgs<T>&, AttentionPath, cudaStream_t);             \
  template Status chunk_attention_backward<T>(const ChunkAttentionBackwardArgs<T>&, AttentionPath, cudaStream_t); \
  template Status output_gate_backward<T>(const OutputGateBackwardArgs<T>&, cudaStream_t);
RAT_INSTANTIATE(float)
RAT_INSTANTIATE(bf16)

}  // namespace rat::kernels::cuda
