// What forward and backward attention share on the GPU: rows of one head in shared memory, and two products on them.
//
// A block owns a tile of rows (queries, or keys in the gradient of keys) while tiles of the other side stream past it.
// Half a warp owns a row: its scores, its sums and its weights in shared memory, so that only tiles need a barrier.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>

#include "kernels/cuda/device.h"
#include "kernels/cuda_ops.h"
#include "kernels/range_attention/range_attention.h"

namespace rat::kernels::gpu::attention {

inline constexpr int lanes = 16;  // threads that own a row
inline constexpr int largest_head = 256;
inline constexpr int most_segments = 3;

// Rows of sequences, of which every head reads its own columns.
template <class T>
struct Tensor {
  T* data = nullptr;
  int64_t stride = 0, sequence_stride = 0;
  bool quads = false;  // four neighbouring values of a head may be moved at once

  __device__ T* row(int64_t b, int64_t i, int64_t column) const {
    return data + b * sequence_stride + i * stride + column;
  }
};

struct Segment {
  Tensor<const float> k, v;
  KeyRange range;

  // The keys that rows [token, token + rows) see lie in [first_key, last_key).
  __device__ int64_t first_key(int64_t token) const { return std::max(range.first, range.begin(token)); }
  __device__ int64_t last_key(int64_t token, int rows) const { return range.end(token + rows - 1); }
};

struct Attention {
  int64_t batch = 0, tokens = 0;
  int heads = 0, head_size = 0;
  int query_heads = 0, kv_heads = 0;  // head h reads query head h % query_heads and key head h % kv_heads
  int segments = 0;
  float scale = 0;
  Tensor<const float> q, own_q, own_k, own_v;  // own_k.data null: no own key
  Segment segment[most_segments];
};

template <class T>
Tensor<T> tensor(const Sequences<T>& x, int64_t head_size) {
  const bool quads = reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.stride % 4 == 0 &&
                     x.sequence_stride % 4 == 0 && head_size % 4 == 0;
  return {x.data, x.stride, x.sequence_stride, quads};
}
template <class T>
Tensor<T> tensor(const Rows<T>& x, const AttentionShape& shape) {
  return tensor(Sequences<T>{x.data, x.stride, shape.tokens * x.stride}, shape.head_size);
}

inline Attention attention_of(const RangeAttentionArgs& args) {
  const AttentionShape& s = args.shape;
  Attention a;
  a.batch = s.batch, a.tokens = s.tokens;
  a.heads = static_cast<int>(s.heads), a.head_size = static_cast<int>(s.head_size);
  a.query_heads = static_cast<int>(args.q.cols / s.head_size);
  a.kv_heads = static_cast<int>(s.kv_columns() / s.head_size);
  a.segments = static_cast<int>(args.segments());
  a.scale = 1.0f / std::sqrt(static_cast<float>(s.head_size));
  a.q = tensor(args.q, s);
  a.own_q = tensor(args.own_q, s), a.own_k = tensor(args.own_k, s), a.own_v = tensor(args.own_v, s);
  for (int i = 0; i < a.segments; ++i) {
    const KeySegment segment = args.segment(i);
    a.segment[i] = {tensor(segment.k, s.head_size), tensor(segment.v, s.head_size), segment.range};
  }
  return a;
}

// Width: channels of a head, padded with zeros. A thread has `per_thread` of the block's rows, row_step apart.
template <int Width, int Rows, int Stream, int PerThread>
struct Tile {
  static constexpr int width = Width, rows = Rows, stream = Stream, per_thread = PerThread;
  static constexpr int row_step = rows / per_thread, threads = row_step * lanes;
  static constexpr int columns = width / lanes, pack = columns < 4 ? columns : 4;  // of a thread's sums
  static constexpr int scores = stream / lanes;                                    // of a thread's row
  // Four more floats than needed, so that rows one apart begin in different banks.
  static constexpr int line = width + 4, weight_line = stream + 4;
  static_assert(threads >= rows && threads >= stream);

  using Scores = float[per_thread][scores];
  using Sums = float[per_thread][columns];
};

__device__ inline int lane() { return static_cast<int>(threadIdx.x) % lanes; }
__device__ inline int first_row() { return static_cast<int>(threadIdx.x) / lanes; }

// 2^x of a difference of scores, which is at most 0 where it matters: the product's rounding is below that of a weight.
__device__ inline float exp_of(float x) { return exp2f(x * 1.44269504f); }

__device__ inline float lanes_max(float x) {
#pragma unroll
  for (int step = lanes / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}
__device__ inline float lanes_sum(float x) {
#pragma unroll
  for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// `rows` rows of one head into shared memory; what is missing of `Rows` rows and Width columns becomes 0.
// A thread keeps to four columns.
template <int Rows, class Tile>
__device__ void load_rows(float* shared, const Tensor<const float>& x, const float* from, int rows, int head_size) {
  constexpr int quads = Tile::width / 4, step = Tile::threads / quads;
  static_assert(Tile::threads % quads == 0);
  const int column = static_cast<int>(threadIdx.x) % quads * 4, first = static_cast<int>(threadIdx.x) / quads;
  from += first * x.stride + column;
  shared += first * Tile::line + column;
  if (column >= head_size) rows = 0;
#pragma unroll 4
  for (int r = first; r < Rows; r += step, from += step * x.stride, shared += step * Tile::line) {
    float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (r < rows && x.quads) {
      value = *reinterpret_cast<const float4*>(from);
    } else if (r < rows) {
      value.x = from[0];
      if (column + 1 < head_size) value.y = from[1];
      if (column + 2 < head_size) value.z = from[2];
      if (column + 3 < head_size) value.w = from[3];
    }
    *reinterpret_cast<float4*>(shared) = value;
  }
}

// Which keys each of `Rows` tokens sees, counted from `origin`; none for rows that do not exist.
template <int Rows>
__device__ void find_seen(const KeyRange& range, int64_t token, int rows, int64_t origin, int* begin, int* end) {
  const int r = static_cast<int>(threadIdx.x);
  if (r >= Rows) return;
  begin[r] = r < rows ? static_cast<int>(range.begin(token + r) - origin) : 0;
  end[r] = r < rows ? static_cast<int>(range.end(token + r) - origin) : 0;
}

// scores[i][j] = own row i . streamed row j, for this thread's rows and every sixteenth streamed row.
template <class Tile>
__device__ void dot_products(typename Tile::Scores& scores, const float* own, const float* streamed) {
#pragma unroll
  for (int i = 0; i < Tile::per_thread; ++i)
#pragma unroll
    for (int j = 0; j < Tile::scores; ++j) scores[i][j] = 0.0f;
  own += first_row() * Tile::line;
  streamed += lane() * Tile::line;
#pragma unroll 1
  for (int column = 0; column < Tile::width; column += 4) {
    float4 right[Tile::scores];
#pragma unroll
    for (int j = 0; j < Tile::scores; ++j)
      right[j] = *reinterpret_cast<const float4*>(streamed + j * lanes * Tile::line + column);
#pragma unroll
    for (int i = 0; i < Tile::per_thread; ++i) {
      const float4 left = *reinterpret_cast<const float4*>(own + i * Tile::row_step * Tile::line + column);
#pragma unroll
      for (int j = 0; j < Tile::scores; ++j) {
        scores[i][j] = fmaf(left.x, right[j].x, scores[i][j]);
        scores[i][j] = fmaf(left.y, right[j].y, scores[i][j]);
        scores[i][j] = fmaf(left.z, right[j].z, scores[i][j]);
        scores[i][j] = fmaf(left.w, right[j].w, scores[i][j]);
      }
    }
  }
}

// This thread's columns of a streamed row, from shared memory.
template <class Tile>
__device__ void load_columns(float (&to)[Tile::columns], const float* row) {
#pragma unroll
  for (int c = 0; c < Tile::columns; c += Tile::pack) {
    const float* from = row + c * lanes + lane() * Tile::pack;
    if constexpr (Tile::pack == 4) {
      const float4 x = *reinterpret_cast<const float4*>(from);
      to[c] = x.x, to[c + 1] = x.y, to[c + 2] = x.z, to[c + 3] = x.w;
    } else if constexpr (Tile::pack == 2) {
      const float2 x = *reinterpret_cast<const float2*>(from);
      to[c] = x.x, to[c + 1] = x.y;
    } else {
      to[c] = *from;
    }
  }
}

// sums[i] += sum_k weight[i][k] streamed[k], for this thread's rows and columns.
template <class Tile>
__device__ void add_weighted(typename Tile::Sums& sums, const float* weights, const float* streamed) {
  weights += first_row() * Tile::weight_line;
#pragma unroll 1
  for (int k = 0; k < Tile::stream; k += 4) {
    float4 left[Tile::per_thread];
#pragma unroll
    for (int i = 0; i < Tile::per_thread; ++i)
      left[i] = *reinterpret_cast<const float4*>(weights + i * Tile::row_step * Tile::weight_line + k);
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      float right[Tile::columns];
      load_columns<Tile>(right, streamed + (k + part) * Tile::line);
#pragma unroll
      for (int i = 0; i < Tile::per_thread; ++i) {
        const float weight = part == 0 ? left[i].x : part == 1 ? left[i].y : part == 2 ? left[i].z : left[i].w;
#pragma unroll
        for (int c = 0; c < Tile::columns; ++c) sums[i][c] = fmaf(weight, right[c], sums[i][c]);
      }
    }
  }
}

// This thread's scores as weights of add_weighted. The rows are read by this half warp alone.
template <class Tile>
__device__ void share_weights(const typename Tile::Scores& scores, float* weights) {
  __syncwarp();
  weights += first_row() * Tile::weight_line + lane();
#pragma unroll
  for (int i = 0; i < Tile::per_thread; ++i)
#pragma unroll
    for (int j = 0; j < Tile::scores; ++j) weights[i * Tile::row_step * Tile::weight_line + j * lanes] = scores[i][j];
  __syncwarp();
}

template <class Tile>
__device__ void clear(typename Tile::Sums& sums) {
#pragma unroll
  for (int i = 0; i < Tile::per_thread; ++i)
#pragma unroll
    for (int c = 0; c < Tile::columns; ++c) sums[i][c] = 0.0f;
}

// This thread's columns of a row in global memory: to = factor * values, or += with Add.
template <class Tile, bool Add>
__device__ void write_columns(float* to, bool quads, const float (&values)[Tile::columns], float factor,
                              int head_size) {
#pragma unroll
  for (int c = 0; c < Tile::columns; c += Tile::pack) {
    const int column = c * lanes + lane() * Tile::pack;
    if (Tile::pack == 4 && quads) {
      if (column >= head_size) continue;
      float4* const at = reinterpret_cast<float4*>(to + column);
      float4 x = Add ? *at : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      x.x += factor * values[c], x.y += factor * values[c + (1 % Tile::pack)];
      x.z += factor * values[c + (2 % Tile::pack)], x.w += factor * values[c + (3 % Tile::pack)];
      *at = x;
    } else {
#pragma unroll
      for (int i = 0; i < Tile::pack; ++i)
        if (column + i < head_size) to[column + i] = (Add ? to[column + i] : 0.0f) + factor * values[c + i];
    }
  }
}

// A kernel that takes more shared memory than the default 48 KiB says so first.
template <class... Parameters, class... Args>
Status launch(const char* op, void (*kernel)(Parameters...), int64_t blocks, int threads, std::size_t shared,
              const Args&... args) {
  if (shared > 0) {
    RAT_TRY(checked(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
                    op));
    RAT_TRY(checked(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                         cudaSharedmemCarveoutMaxShared),
                    op));
  }
  kernel<<<static_cast<unsigned>(blocks), threads, shared, stream()>>>(args...);
  return launched(op);
}

inline Status fits(const char* op, int64_t head_size) {
  if (head_size <= largest_head) return ok();
  return Error{ErrorCode::unsupported, std::string(op) + " on the GPU takes heads of at most " +
                                           std::to_string(largest_head) + " channels, not " +
                                           std::to_string(head_size) + "; use more heads or the CPU"};
}

// body(width) with the padded head size as a compile-time constant.
template <class Body>
Status for_width(int64_t head_size, const Body& body) {
  if (head_size <= 16) return body(std::integral_constant<int, 16>{});
  if (head_size <= 32) return body(std::integral_constant<int, 32>{});
  if (head_size <= 64) return body(std::integral_constant<int, 64>{});
  if (head_size <= 128) return body(std::integral_constant<int, 128>{});
  return body(std::integral_constant<int, largest_head>{});
}

}  // namespace rat::kernels::gpu::attention
