// How the CUDA kernels of linear attention walk a sequence: tiles of 64 tokens in shifted coordinates, where query j is
// token j + shift, key j is token j, 0 <= j < T - shift, and a query sees the keys up to its own index. So only pairs
// inside one tile need a mask; the other tiles come through their state. Backward is the same with both sides
// exchanged.
//
// A block of 256 threads has a tile; its threads form a square of 16 x 16. Heads are padded with zeros to `Wide`
// channels: 16, 32, 64 or 128.
#pragma once

#include <climits>
#include <type_traits>

#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/linear_attention/linear_attention.h"

namespace rat::kernels::gpu::linear {

constexpr int tile = 64, threads = 256, cell_pitch = tile + 4;

// Rows whose neighbours are read at once by 8 lanes lie an odd number of 16 bytes apart: no bank conflicts.
template <int Wide>
constexpr int row_pitch = Wide + 4;
template <int Wide>
constexpr int feature_pitch = 2 * Wide + 4;
template <int Wide>
constexpr int state_size = 2 * Wide * Wide;

// Queries with what is read or written for them, or keys with their values.
struct Side {
  Input features, values;
  int64_t shift;  // token of the side's first row
};

struct Plan {
  int64_t tokens, batch, length, tiles;  // length: of the shifted sequence; 0: no token sees any
  int head_size, heads, groups;          // groups: heads of keys and values
  int units, members;                    // a block has one unit of a tile: the heads unit, unit + units, ...
  int tile_rows;

  template <class Args>
  explicit Plan(const Args& a, int rows_of_tile = tile)
      : tokens(a.tokens),
        batch(a.q.rows / a.tokens),
        length(a.tokens > a.shift ? a.tokens - a.shift : 0),
        tiles((length + rows_of_tile - 1) / rows_of_tile),
        head_size(static_cast<int>(a.head_size)),
        heads(static_cast<int>(a.heads)),
        groups(static_cast<int>(a.k.cols / a.head_size)),
        units(heads),
        members(1),
        tile_rows(rows_of_tile) {}
  Plan with_units(int units_, int members_) const {
    Plan plan = *this;
    plan.units = units_;
    plan.members = members_;
    return plan;
  }
  int64_t blocks() const { return batch * units * tiles; }
};

// The tile of a block.
struct Place {
  int64_t batch, tile_index, first;
  int unit, rows;

  __device__ Place(const Plan& plan, int64_t block)
      : batch(block / plan.tiles / plan.units),
        tile_index(block % plan.tiles),
        first(tile_index * plan.tile_rows),
        unit(static_cast<int>(block / plan.tiles % plan.units)),
        rows(static_cast<int>(min(static_cast<int64_t>(plan.tile_rows), plan.length - first))) {}
  // Where the tile's rows of a head begin; heads share columns where the rows are narrower.
  template <class T>
  __device__ T* rows_of(const Plan& plan, const Rows<T>& x, int64_t shift, int head) const {
    return x.data + (batch * plan.tokens + first + shift) * x.stride +
           static_cast<int64_t>(head) * plan.head_size % x.cols;
  }
  template <int Wide, class T>
  __device__ T* state(const Plan& plan, T* states) const {
    return states + ((batch * plan.groups + unit % plan.groups) * plan.tiles + tile_index) * state_size<Wide>;
  }
};

// Zeros fill the tile.
template <int Wide>
__device__ void load_rows(float* to, int pitch, const float* from, int64_t stride, int rows, int head_size) {
#pragma unroll 4
  for (int i = threadIdx.x; i < tile * Wide; i += threads) {
    const int row = i / Wide, column = i % Wide;
    to[row * pitch + column] = row < rows && column < head_size ? from[row * stride + column] : 0.0f;
  }
}

// phi of the tile's rows: of its two halves, softmax(x) and softmax(-x), `Halves` from `first_half`. A warp per row.
template <int Wide, int Halves>
__device__ void load_features(float* to, int pitch, const float* from, int64_t stride, int rows, int head_size,
                              int first_half = 0) {
  constexpr int each = (Wide + 31) / 32;
  const int lane = threadIdx.x % 32;
  for (int row = threadIdx.x / 32; row < tile; row += threads / 32) {
    float x[each];
#pragma unroll
    for (int j = 0; j < each; ++j)
      x[j] = row < rows && lane + 32 * j < head_size ? from[row * stride + lane + 32 * j] : 0.0f;
#pragma unroll
    for (int half = 0; half < Halves; ++half) {
      const float sign = first_half + half == 0 ? 1.0f : -1.0f;
      float largest = -INFINITY, sum = 0.0f;
#pragma unroll
      for (int j = 0; j < each; ++j)
        if (lane + 32 * j < head_size) largest = fmaxf(largest, sign * x[j]);
      largest = cuda::largest_over_lanes(largest);
      float y[each];
#pragma unroll
      for (int j = 0; j < each; ++j) {
        y[j] = lane + 32 * j < head_size ? expf(sign * x[j] - largest) : 0.0f;
        sum += y[j];
      }
      const float scale = row < rows ? 1.0f / warp_sum(sum) : 0.0f;
#pragma unroll
      for (int j = 0; j < each; ++j)
        if (lane + 32 * j < Wide) to[row * pitch + half * Wide + lane + 32 * j] = y[j] * scale;
    }
  }
}

// The columns of a thread, out of Wide: runs of `run` neighbours.
template <int Wide>
constexpr int run = Wide >= 64 ? 4 : Wide / 16;
template <int Wide>
__device__ __forceinline__ int column_of(int index, int thread) {
  return index / run<Wide> * (16 * run<Wide>) + thread * run<Wide> + index % run<Wide>;
}

enum class Seen { all, up_to_own, from_own };

// cells[i][j] = a[i] . b[j] over K columns for the pairs that are seen, 0 for others.
template <int K>
__device__ void pair_products(const float* a, const float* b, int pitch, Seen seen, float* cells) {
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  float acc[4][4] = {};
#pragma unroll 2
  for (int k = 0; k < K; k += 4) {
    float4 left[4], right[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) left[i] = *reinterpret_cast<const float4*>(a + (y + 16 * i) * pitch + k);
#pragma unroll
    for (int j = 0; j < 4; ++j) right[j] = *reinterpret_cast<const float4*>(b + (x + 16 * j) * pitch + k);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        acc[i][j] = fmaf(left[i].x, right[j].x, acc[i][j]);
        acc[i][j] = fmaf(left[i].y, right[j].y, acc[i][j]);
        acc[i][j] = fmaf(left[i].z, right[j].z, acc[i][j]);
        acc[i][j] = fmaf(left[i].w, right[j].w, acc[i][j]);
      }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = y + 16 * i, column = x + 16 * j;
      const bool kept = seen == Seen::all || (seen == Seen::up_to_own ? column <= row : column >= row);
      cells[row * cell_pitch + column] = kept ? acc[i][j] : 0.0f;
    }
}

// acc += a b: a (64, K), b (K, Halves * Wide). A thread has the rows y + 16 i and, in each half, its own columns.
template <int K, int Wide, int Halves>
__device__ void multiply(const float* a, int a_pitch, const float* b, int b_pitch,
                         float (&acc)[4][Halves * Wide / 16]) {
  constexpr int each = Wide / 16, length = run<Wide>;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll 1
  for (int k = 0; k < K; k += 4) {
    float left[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) cuda::load<4>(a + (y + 16 * i) * a_pitch + k, left[i]);
#pragma unroll
    for (int step = 0; step < 4; ++step)
#pragma unroll
      for (int group = 0; group < Halves * each / length; ++group) {
        const int half = group * length / each, index = group * length % each;
        float right[length];
        cuda::load<length>(b + (k + step) * b_pitch + half * Wide + column_of<Wide>(index, x), right);
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < length; ++j)
            acc[i][group * length + j] = fmaf(left[i][step], right[j], acc[i][group * length + j]);
      }
  }
}

// For each sequence and group, the sum over its unit's heads of phi(features)^T values of each tile. A block has one
// half of the features.
template <int Wide>
__global__ void __launch_bounds__(threads) tile_states(Plan plan, Side side, float* states) {
  extern __shared__ __align__(16) float shared[];
  constexpr int each = Wide / 16, length = run<Wide>;
  const Place place(plan, blockIdx.x / 2);
  const int half = blockIdx.x % 2, x = threadIdx.x % 16, y = threadIdx.x / 16;
  float *const features = shared, *const values = shared + tile * Wide;
  float acc[each][each] = {};
  for (int member = 0; member < plan.members; ++member) {
    const int head = place.unit + member * plan.units;
    load_features<Wide, 1>(features, Wide, place.rows_of(plan, side.features, side.shift, head), side.features.stride,
                           place.rows, plan.head_size, half);
    load_rows<Wide>(values, Wide, place.rows_of(plan, side.values, side.shift, head), side.values.stride, place.rows,
                    plan.head_size);
    __syncthreads();
#pragma unroll 2
    for (int k = 0; k < tile; ++k) {
      float left[each], right[each];
#pragma unroll
      for (int i = 0; i < each; i += length) {
        float run_of_left[length], run_of_right[length];
        cuda::load<length>(features + k * Wide + column_of<Wide>(i, y), run_of_left);
        cuda::load<length>(values + k * Wide + column_of<Wide>(i, x), run_of_right);
#pragma unroll
        for (int j = 0; j < length; ++j) left[i + j] = run_of_left[j], right[i + j] = run_of_right[j];
      }
#pragma unroll
      for (int i = 0; i < each; ++i)
#pragma unroll
        for (int j = 0; j < each; ++j) acc[i][j] = fmaf(left[i], right[j], acc[i][j]);
    }
    __syncthreads();
  }
  float* const state = place.state<Wide>(plan, states) + half * Wide * Wide;
#pragma unroll
  for (int i = 0; i < each; ++i)
#pragma unroll
    for (int j = 0; j < each; j += length) {
      float part[length];
#pragma unroll
      for (int l = 0; l < length; ++l) part[l] = acc[i][j + l];
      cuda::store<length>(state + column_of<Wide>(i, y) * Wide + column_of<Wide>(j, x), part);
    }
}

// The state of each tile becomes the sum over all earlier (or later) tiles of its sequence. A thread has four elements.
template <bool Later>
__global__ void __launch_bounds__(threads) running_sums(float4* states, int64_t sequences, int64_t tiles,
                                                        int64_t quads) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (index >= sequences * quads) return;
  float4* const state = states + index / quads * tiles * quads + index % quads;
  float4 sum{0, 0, 0, 0};
  constexpr int ahead = 8;  // loads in flight
  for (int64_t begin = 0; begin < tiles; begin += ahead) {
    float4 own[ahead];
#pragma unroll
    for (int i = 0; i < ahead; ++i)
      if (begin + i < tiles) own[i] = state[(Later ? tiles - 1 - begin - i : begin + i) * quads];
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      if (begin + i >= tiles) break;
      state[(Later ? tiles - 1 - begin - i : begin + i) * quads] = sum;
      sum = {sum.x + own[i].x, sum.y + own[i].y, sum.z + own[i].z, sum.w + own[i].w};
    }
  }
}

// More than 48 KiB of a block's shared memory must be asked for.
template <class Kernel, class... Args>
Status launch(const char* op, Kernel* kernel, int64_t blocks, int64_t shared_floats, const Args&... args) {
  const auto bytes = static_cast<std::size_t>(shared_floats) * sizeof(float);
  if (blocks > INT_MAX)
    return Error{ErrorCode::unsupported,
                 "linear attention on the GPU: the batch has too many tiles; use a smaller batch"};
  constexpr auto limit = cudaFuncAttributeMaxDynamicSharedMemorySize;
  RAT_TRY(checked(cudaFuncSetAttribute(kernel, limit, static_cast<int>(bytes)), op));
  kernel<<<static_cast<unsigned>(blocks), threads, bytes, stream()>>>(args...);
  return launched(op);
}

// body(std::integral_constant<int, Wide>).
template <class Body>
Status with_padded_head(int64_t head_size, const Body& body) {
  if (head_size <= 16) return body(std::integral_constant<int, 16>{});
  if (head_size <= 32) return body(std::integral_constant<int, 32>{});
  if (head_size <= 64) return body(std::integral_constant<int, 64>{});
  if (head_size <= 128) return body(std::integral_constant<int, 128>{});
  return Error{ErrorCode::unsupported,
               "linear attention on the GPU takes heads of up to 128 channels; use more heads or the device cpu"};
}

template <int Wide>
Status sum_tiles(const char* op, const Plan& plan, const Side& side, float* states) {
  return launch(op, tile_states<Wide>, 2 * plan.blocks(), 2 * tile * Wide, plan, side, states);
}

// In scratch block 0: for each tile the sum of phi(features)^T values over all earlier (or later) ones.
template <int Wide, bool Later>
Result<float*> summed_states(const char* op, const Plan& plan, const Side& side) {
  const int64_t sequences = plan.batch * plan.groups;
  auto states = scratch<float>(0, sequences * plan.tiles * state_size<Wide>);
  if (!states) return states.error();
  RAT_TRY((sum_tiles<Wide>(op, plan, side, *states)));
  const int64_t quads = state_size<Wide> / 4;
  running_sums<Later><<<blocks_for(sequences * quads, threads), threads, 0, stream()>>>(
      reinterpret_cast<float4*>(*states), sequences, plan.tiles, quads);
  RAT_TRY(launched(op));
  return *states;
}

// out (+)= features_of_rows . features_of_columns, masked, times values_of_columns, plus features_of_rows . state.
// Forward (Later = false): rows are queries, out is written. Later = true: rows are keys, columns the queries after
// them of all heads of the group, and out, the gradient of the values, is added to.
template <int Wide, bool Later>
__global__ void __launch_bounds__(threads, Wide < 128 ? 2 : 1)
    attend(Plan plan, Side rows, Side columns, const float* states, Output out) {
  extern __shared__ __align__(16) float shared[];
  constexpr int pitch = feature_pitch<Wide>, slice = 2 * Wide < 128 ? 2 * Wide : 128;
  static_assert(slice * Wide <= tile * pitch);
  float *const row_features = shared, *const other = shared + tile * pitch, *const cells = other + tile * pitch;
  const Place place(plan, blockIdx.x);
  load_features<Wide, 2>(row_features, pitch, place.rows_of(plan, rows.features, rows.shift, place.unit),
                         rows.features.stride, place.rows, plan.head_size);
  float acc[4][Wide / 16] = {};
  for (int member = 0; member < plan.members; ++member) {
    const int head = place.unit + member * plan.units;
    load_features<Wide, 2>(other, pitch, place.rows_of(plan, columns.features, columns.shift, head),
                           columns.features.stride, place.rows, plan.head_size);
    __syncthreads();
    pair_products<2 * Wide>(row_features, other, pitch, Later ? Seen::from_own : Seen::up_to_own, cells);
    __syncthreads();
    load_rows<Wide>(other, Wide, place.rows_of(plan, columns.values, columns.shift, head), columns.values.stride,
                    place.rows, plan.head_size);
    __syncthreads();
    multiply<tile, Wide, 1>(cells, cell_pitch, other, Wide, acc);
    __syncthreads();
  }
  const float* const state = place.state<Wide>(plan, states);
  for (int begin = 0; begin < 2 * Wide; begin += slice) {
    for (int i = 4 * threadIdx.x; i < slice * Wide; i += 4 * threads)
      *reinterpret_cast<float4*>(other + i) = *reinterpret_cast<const float4*>(state + begin * Wide + i);
    __syncthreads();
    multiply<slice, Wide, 1>(row_features + begin, pitch, other, Wide, acc);
    __syncthreads();
  }
  float* const to = place.rows_of(plan, out, rows.shift, place.unit);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = threadIdx.x / 16 + 16 * i;
#pragma unroll
    for (int j = 0; j < Wide / 16; ++j) {
      const int column = column_of<Wide>(j, threadIdx.x % 16);
      if (row >= place.rows || column >= plan.head_size) continue;
      float& value = to[row * out.stride + column];
      value = Later ? value + acc[i][j] : acc[i][j];
    }
  }
}
template <int Wide>
constexpr int64_t attend_shared = 2 * tile * feature_pitch<Wide> + tile * cell_pitch;

}  // namespace rat::kernels::gpu::linear
