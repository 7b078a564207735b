// Forward attention on the GPU: a tile of queries against tiles of the keys that any of them sees, under a running
// maximum; the weights themselves for display; and one query against many keys for decoding.
#include "kernels/range_attention/range_attention_cuda.cuh"
#include "kernels/range_attention/token_attention_cuda.h"

namespace rat::kernels::gpu {
namespace {

using namespace attention;

template <int Width>
using ForwardTile = Tile<Width, 64, 64, Width <= 128 ? 8 : 4>;

template <class Tile>
constexpr std::size_t forward_memory =
    ((Tile::rows + Tile::stream) * Tile::line + Tile::rows * Tile::weight_line) * sizeof(float);

// Blocks per multiprocessor, which shared memory allows and registers must.
template <class Tile>
constexpr int forward_blocks = Tile::width <= 64 ? 3 : Tile::width <= 128 ? 2 : 1;

// A tile of queries of one head. The last tiles see the most keys: they go first.
template <class Tile>
struct QueryTile {
  int64_t b, token;
  int head, rows;

  __device__ QueryTile(const Attention& a, int heads) {
    const int64_t all = a.batch * heads, bh = blockIdx.x % all;
    b = bh / heads;
    head = static_cast<int>(bh % heads);
    token = (gridDim.x / all - 1 - blockIdx.x / all) * Tile::rows;
    rows = static_cast<int>(std::min<int64_t>(Tile::rows, a.tokens - token));
  }
};

// A thread's share of the running softmax: `sum` over its own scores, `max` of its whole rows.
template <class Tile>
struct Running {
  float max[Tile::per_thread], sum[Tile::per_thread];
  typename Tile::Sums out;

  __device__ void start() {
#pragma unroll
    for (int i = 0; i < Tile::per_thread; ++i) max[i] = -INFINITY, sum[i] = 0.0f;
    clear<Tile>(out);
  }

  // As if the own key had been the first.
  __device__ void start_with_own(const Attention& a, const QueryTile<Tile>& tile) {
    const int q_at = tile.head % a.query_heads * a.head_size, kv_at = tile.head * a.head_size;
#pragma unroll
    for (int i = 0; i < Tile::per_thread; ++i) {
      const int row = first_row() + i * Tile::row_step;
      const int64_t t = tile.token + (row < tile.rows ? row : 0);
      const float *q = a.own_q.row(tile.b, t, q_at), *k = a.own_k.row(tile.b, t, kv_at);
      float score = 0.0f;
      for (int p = lane(); p < a.head_size; p += lanes) score = fmaf(q[p], k[p], score);
      max[i] = lanes_sum(score) * a.scale;
      sum[i] = lane() == 0 ? 1.0f : 0.0f;
      const float* v = a.own_v.row(tile.b, t, kv_at);
#pragma unroll
      for (int c = 0; c < Tile::columns; ++c) {
        const int column = c / Tile::pack * Tile::pack * lanes + lane() * Tile::pack + c % Tile::pack;
        out[i][c] = column < a.head_size ? v[column] : 0.0f;
      }
    }
  }

  // Scores become weights relative to the new maximum. Row i's scores are those of unseen keys where -inf.
  __device__ void take(typename Tile::Scores& scores) {
#pragma unroll
    for (int i = 0; i < Tile::per_thread; ++i) {
      float largest = scores[i][0];
#pragma unroll
      for (int j = 1; j < Tile::scores; ++j) largest = fmaxf(largest, scores[i][j]);
      largest = fmaxf(max[i], lanes_max(largest));
      const float shift = largest == -INFINITY ? 0.0f : largest;  // nothing seen yet
      const float shrink = exp_of(max[i] - shift);
      max[i] = largest;
      sum[i] *= shrink;
#pragma unroll
      for (int j = 0; j < Tile::scores; ++j) sum[i] += scores[i][j] = exp_of(scores[i][j] - shift);
#pragma unroll
      for (int c = 0; c < Tile::columns; ++c) out[i][c] *= shrink;
    }
  }
};

// Unseen keys score -inf. `at`: the tile's first key, counted as begin and end are.
template <class Tile>
__device__ void scale_and_mask(typename Tile::Scores& scores, float scale, int at, const int* begin, const int* end) {
#pragma unroll
  for (int i = 0; i < Tile::per_thread; ++i) {
    const int row = first_row() + i * Tile::row_step;
    const int from = begin[row] - at - lane(), until = end[row] - at - lane();
#pragma unroll
    for (int j = 0; j < Tile::scores; ++j)
      scores[i][j] = j * lanes >= from && j * lanes < until ? scores[i][j] * scale : -INFINITY;
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::threads, forward_blocks<Tile>)
    attend(const __grid_constant__ Attention a, const __grid_constant__ Tensor<float> out, const Output lse) {
  extern __shared__ float4 shared_memory[];
  __shared__ int seen_begin[Tile::rows], seen_end[Tile::rows];
  float* const queries = reinterpret_cast<float*>(shared_memory);
  float* const keys = queries + Tile::rows * Tile::line;  // and then values
  float* const weights = keys + Tile::stream * Tile::line;
  const QueryTile<Tile> tile(a, a.heads);
  const int P = a.head_size, kv_at = tile.head % a.kv_heads * P;
  load_rows<Tile::rows, Tile>(queries, a.q, a.q.row(tile.b, tile.token, tile.head % a.query_heads * P), tile.rows, P);
  Running<Tile> running;
  if (a.own_k.data != nullptr)
    running.start_with_own(a, tile);
  else
    running.start();

  for (int s = 0; s < a.segments; ++s) {
    const Segment& segment = a.segment[s];
    const int64_t first = segment.first_key(tile.token);
    const int size = static_cast<int>(segment.last_key(tile.token, tile.rows) - first);
    if (size <= 0) continue;
    find_seen<Tile::rows>(segment.range, tile.token, tile.rows, first, seen_begin, seen_end);
    for (int key = 0; key < size; key += Tile::stream) {  // counted from the first
      const int count = std::min(int{Tile::stream}, size - key);
      __syncthreads();
      load_rows<Tile::stream, Tile>(keys, segment.k, segment.k.row(tile.b, first + key, kv_at), count, P);
      __syncthreads();
      typename Tile::Scores scores;
      dot_products<Tile>(scores, queries, keys);
      scale_and_mask<Tile>(scores, a.scale, key, seen_begin, seen_end);
      running.take(scores);
      share_weights<Tile>(scores, weights);
      __syncthreads();
      load_rows<Tile::stream, Tile>(keys, segment.v, segment.v.row(tile.b, first + key, kv_at), count, P);
      __syncthreads();
      add_weighted<Tile>(running.out, weights, keys);
    }
  }

#pragma unroll
  for (int i = 0; i < Tile::per_thread; ++i) {
    const int row = first_row() + i * Tile::row_step;
    const float sum = lanes_sum(running.sum[i]);
    if (row >= tile.rows) continue;
    const int64_t t = tile.token + row;
    write_columns<Tile, false>(out.row(tile.b, t, tile.head * P), out.quads, running.out[i], 1.0f / sum, P);
    if (lane() == 0) lse.data[(tile.b * a.heads + tile.head) * lse.stride + t] = running.max[i] + logf(sum);
  }
}

// Display and decoding: whole blocks work on one query.

__device__ float warp_max(float x) {
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}
__device__ float warp_sum(float x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

constexpr int show_threads = 128;

// The same value for every thread of the block. `join` of all their values, in fixed order.
template <class Join>
__device__ float block_join(float x, float* shared, const Join& join) {
  __syncthreads();
  shared[threadIdx.x] = x;
  __syncthreads();
  x = shared[0];
  for (int i = 1; i < show_threads; ++i) x = join(x, shared[i]);
  return x;
}

struct ShownColumns {
  int64_t first[most_segments] = {}, step[most_segments] = {};
};

// A block shows one query: scores first, in the cells that are theirs, then weights.
__global__ void __launch_bounds__(show_threads)
    show(const __grid_constant__ Attention a, const __grid_constant__ ShownColumns columns, const Output weights) {
  __shared__ float query[largest_head], joined[show_threads];
  const int64_t row = blockIdx.x, t = row % a.tokens, b = row / a.tokens / a.heads;
  const int head = static_cast<int>(row / a.tokens % a.heads), P = a.head_size, me = static_cast<int>(threadIdx.x);
  const int q_at = head % a.query_heads * P, kv_at = head % a.kv_heads * P;
  const bool own = a.own_k.data != nullptr;
  float* const shown = weights.data + row * weights.stride;
  for (int p = me; p < P; p += show_threads) query[p] = a.q.row(b, t, q_at)[p];
  for (int64_t j = me; j < weights.cols; j += show_threads) shown[j] = NAN;
  __syncthreads();

  float largest = -INFINITY;
  const auto dot = [&](const float* q, const float* k) {
    float score = 0.0f;
    for (int p = 0; p < P; ++p) score = fmaf(q[p], k[p], score);
    score *= a.scale;
    largest = fmaxf(largest, score);
    return score;
  };
  // Calls body(cell, key or -1 for the own key, segment) for this thread's cells.
  const auto for_each_cell = [&](const auto& body) {
    for (int s = 0; s < a.segments; ++s)
      for (int64_t j = a.segment[s].range.begin(t) + me; j < a.segment[s].range.end(t); j += show_threads)
        body(shown[columns.first[s] + j * columns.step[s]], j, s);
    if (own && me == 0) body(shown[weights.cols - 1], -1, 0);
  };
  for_each_cell([&](float& cell, int64_t j, int s) {
    cell = j < 0 ? dot(a.own_q.row(b, t, q_at), a.own_k.row(b, t, head * P))
                 : dot(query, a.segment[s].k.row(b, j, kv_at));
  });
  largest = block_join(largest, joined, [](float x, float y) { return fmaxf(x, y); });
  float sum = 0.0f;
  for_each_cell([&](float& cell, int64_t, int) { sum += expf(cell - largest); });
  sum = block_join(sum, joined, [](float x, float y) { return x + y; });
  const float log_sum = largest + logf(sum);
  for_each_cell([&](float& cell, int64_t, int) { cell = expf(cell - log_sum); });
}

constexpr int one_threads = 256, one_keys = 128;  // threads of a block, keys that it works on at a time
constexpr int key_lanes = 8;                      // threads that share a key
constexpr int64_t most_parts = 128;               // of a head's keys

struct OneQuery {
  int64_t batch;
  int heads, head_size, query_heads, kv_heads;
  int64_t keys, keys_per_part;  // of a sequence
  int parts;
  float scale;
  Input q, k, v, own_q, own_k, own_v;
};

// scores[j] = q . k of keys [first, first + count), -inf for the rest of a full tile.
__device__ void score_keys(const OneQuery& one, int64_t b, int head, const float* query, int64_t first, int count,
                           float* scores) {
  const int part = static_cast<int>(threadIdx.x) % key_lanes;
  for (int j = static_cast<int>(threadIdx.x) / key_lanes; j < one_keys; j += one_threads / key_lanes) {
    const float* key = one.k.row((first + j) * one.batch + b) + head % one.kv_heads * one.head_size;
    float score = 0.0f;
    if (j < count)
#pragma unroll 8
      for (int p = part; p < one.head_size; p += key_lanes) score = fmaf(query[p], key[p], score);
    for (int step = key_lanes / 2; step > 0; step /= 2) score += __shfl_xor_sync(0xffffffffu, score, step);
    if (part == 0) scores[j] = j < count ? score * one.scale : -INFINITY;
  }
}

// A block attends to one part of the keys of one head of one sequence, the first part also to the own key. With one
// part it writes the output, else its maximum, its sum and its sums of values. Thread (group, p) sums every groups-th
// value of channel p.
__global__ void __launch_bounds__(one_threads)
    attend_part(const __grid_constant__ OneQuery one, const Output out, float* partial) {
  __shared__ float query[largest_head], scores[one_keys], weights[one_keys], sums[one_threads];
  const int64_t item = blockIdx.x / one.parts, b = item / one.heads;  // items: heads of sequences
  const int head = static_cast<int>(item % one.heads), part = static_cast<int>(blockIdx.x % one.parts);
  const int me = static_cast<int>(threadIdx.x), P = one.head_size, q_at = head % one.query_heads * P;
  const int groups = one_threads / P, group = me / P, p = me % P;
  for (int i = me; i < P; i += one_threads) query[i] = one.q.row(b)[q_at + i];
  float max = -INFINITY, sum = 0.0f, value = 0.0f;
  if (part == 0 && one.own_k.data != nullptr) {
    float score = 0.0f;
    const float *own_q = one.own_q.row(b) + q_at, *own_k = one.own_k.row(b) + head * P;
    for (int i = me % 32; i < P; i += 32) score = fmaf(own_q[i], own_k[i], score);
    max = warp_sum(score) * one.scale;
    sum = 1.0f;
    if (group == 0) value = one.own_v.row(b)[head * P + p];
  }
  const int64_t end = std::min(one.keys, (part + 1) * one.keys_per_part);
  for (int64_t first = part * one.keys_per_part; first < end; first += one_keys) {
    const int count = static_cast<int>(std::min<int64_t>(one_keys, end - first));
    __syncthreads();
    score_keys(one, b, head, query, first, count, scores);
    __syncthreads();
    float largest = max;  // every warp finds the same
    for (int j = me % 32; j < one_keys; j += 32) largest = fmaxf(largest, scores[j]);
    largest = warp_max(largest);
    const float shift = largest == -INFINITY ? 0.0f : largest, shrink = exp_of(max - shift);
    if (me < one_keys) weights[me] = exp_of(scores[me] - shift);
    __syncthreads();
    float added = 0.0f;
    for (int j = me % 32; j < one_keys; j += 32) added += weights[j];
    max = largest;
    sum = sum * shrink + warp_sum(added);
    value *= shrink;
    if (group < groups) {
      const float* v = one.v.row(first * one.batch + b) + head % one.kv_heads * P + p;
#pragma unroll 8
      for (int j = group; j < count; j += groups) value = fmaf(weights[j], v[j * one.batch * one.v.stride], value);
    }
  }
  sums[me] = value;
  __syncthreads();
  if (me >= P) return;
  for (int i = 1; i < groups; ++i) value += sums[i * P + me];
  float* const to = one.parts == 1 ? out.row(b) + head * P : partial + static_cast<int64_t>(blockIdx.x) * (P + 2);
  to[me] = one.parts == 1 ? value / sum : value;
  if (one.parts > 1 && me == 0) to[P] = max, to[P + 1] = sum;
}

// A block joins the parts of one head of one sequence, in order.
__global__ void join_parts(const float* partial, int parts, int heads, int head_size, const Output out) {
  const int p = static_cast<int>(threadIdx.x);
  if (p >= head_size) return;
  const float* const part = partial + static_cast<int64_t>(blockIdx.x) * parts * (head_size + 2);
  float max = -INFINITY;
  for (int i = 0; i < parts; ++i) max = fmaxf(max, part[static_cast<int64_t>(i) * (head_size + 2) + head_size]);
  float sum = 0.0f, value = 0.0f;
  for (int i = 0; i < parts; ++i) {
    const float* const from = part + static_cast<int64_t>(i) * (head_size + 2);
    const float weight = exp_of(from[head_size] - max);
    sum = fmaf(weight, from[head_size + 1], sum);
    value = fmaf(weight, from[p], value);
  }
  out.row(blockIdx.x / heads)[static_cast<int64_t>(blockIdx.x % heads) * head_size + p] = value / sum;
}

}  // namespace

Status range_attention(const RangeAttentionArgs& args) {
  constexpr const char* op = "range_attention";
  if (is_token_attention(args)) return token_attention(args);
  RAT_TRY(fits(op, args.shape.head_size));
  return for_width(args.shape.head_size, [&](auto width) {
    using Tile = ForwardTile<decltype(width)::value>;
    const int64_t tiles = (args.shape.tokens + Tile::rows - 1) / Tile::rows;
    return launch(op, attend<Tile>, tiles * args.shape.batch * args.shape.heads, Tile::threads, forward_memory<Tile>,
                  attention_of(args), tensor(args.out, args.shape), args.lse);
  });
}

Status attention_weights(const AttentionWeightsArgs& args) {
  constexpr const char* op = "attention_weights";
  const AttentionShape& shape = args.forward.shape;
  RAT_TRY(fits(op, shape.head_size));
  ShownColumns columns;
  for (int i = 0; i < args.forward.segments(); ++i) {
    const KeySegment segment = args.forward.segment(i);
    columns.first[i] = segment.first_column, columns.step[i] = segment.column_step;
  }
  return launch(op, show, shape.batch * shape.heads * shape.tokens, show_threads, 0, attention_of(args.forward),
                columns, args.weights);
}

Status attend_one(const AttendOneArgs& args) {
  constexpr const char* op = "attend_one";
  const int64_t B = args.q.rows, head_size = args.out.cols / args.heads, keys = args.k.rows / B;
  RAT_TRY(fits(op, head_size));
  const int64_t tiles = std::max<int64_t>(1, (keys + one_keys - 1) / one_keys);
  OneQuery one{};
  one.batch = B;
  one.heads = static_cast<int>(args.heads), one.head_size = static_cast<int>(head_size);
  one.query_heads = static_cast<int>(args.q.cols / head_size);
  one.kv_heads = keys > 0 ? static_cast<int>(args.k.cols / head_size) : one.heads;
  one.keys = keys;
  const int64_t wanted = std::max<int64_t>(1, most_parts / B);  // several sequences keep the device busy by themselves
  one.keys_per_part = (tiles + wanted - 1) / wanted * one_keys;
  one.parts = static_cast<int>(std::max<int64_t>(1, (keys + one.keys_per_part - 1) / one.keys_per_part));
  one.scale = 1.0f / std::sqrt(static_cast<float>(head_size));
  one.q = args.q, one.k = args.k, one.v = args.v;
  one.own_q = args.own_q, one.own_k = args.own_k, one.own_v = args.own_v;
  const auto partial = scratch<float>(0, B * args.heads * one.parts * (head_size + 2));
  if (!partial) return partial.error();
  RAT_TRY(launch(op, attend_part, B * args.heads * one.parts, one_threads, 0, one, args.out, *partial));
  if (one.parts == 1) return ok();
  return launch(op, join_parts, B * args.heads, largest_head, 0, *partial, one.parts, one.heads, one.head_size,
                args.out);
}

}  // namespace rat::kernels::gpu
