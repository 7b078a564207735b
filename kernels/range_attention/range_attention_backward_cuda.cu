// Backward attention on the GPU, from the log-sum-exp. With m[t] = grad_out[t] . out[t], every score's gradient is
// p (dp - m), the own key's included. Three kernels, none with atomics, so that every sum has a fixed order: each query
// by itself (m and the own key), tiles of queries (grad_q), and tiles of keys (grad_k and grad_v), segment by segment.
#include "kernels/range_attention/range_attention_cuda.cuh"
#include "kernels/range_attention/token_attention_cuda.h"

namespace rat::kernels::gpu {
namespace {

using namespace attention;

// Tiles of queries past which keys stream: two of the block's own in shared memory, one of the other side.
template <int Width>
using QueryTile = Tile<Width, Width <= 128 ? 64 : 32, Width <= 64 ? 64 : 32, Width <= 128 ? 8 : 4>;
template <class Tile>
constexpr std::size_t query_memory =
    ((2 * Tile::rows + Tile::stream) * Tile::line + Tile::rows * Tile::weight_line) * sizeof(float);

// Tiles of keys past which queries stream: two of each, and twice the sums.
template <int Width>
using KeyTile = Tile<Width, Width <= 128 ? 64 : 32, 32, Width <= 64 ? 8 : Width <= 128 ? 4 : 2>;
template <class Tile>
constexpr std::size_t key_memory =
    (2 * (Tile::rows + Tile::stream) * Tile::line + Tile::rows * Tile::weight_line) * sizeof(float);

// Blocks per multiprocessor, which shared memory allows and registers must.
template <class Tile>
constexpr int query_blocks = Tile::width <= 64 ? 3 : 2;
template <class Tile>
constexpr int key_blocks = Tile::width <= 64 ? 3 : Tile::width <= 128 ? 2 : 1;

// What backward reads besides the forward pass's inputs. `mean` is (B*H, T), dense.
struct Given {
  Tensor<const float> out, grad_out;
  Input lse;
  float* mean;

  __device__ float* means(const Attention& a, int64_t b, int head) const {
    return mean + (b * a.heads + head) * a.tokens;
  }
  __device__ const float* lses(const Attention& a, int64_t b, int head) const {
    return lse.data + (b * a.heads + head) * lse.stride;
  }
};

struct OwnGradients {
  Tensor<float> q, k, v;
};

constexpr int row_threads = 128;
constexpr int channels_per_lane = largest_head / 32;

// A warp per query of every query head: m, and the gradients of the own key, of all heads that share the query in turn.
__global__ void __launch_bounds__(row_threads)
    by_query(const __grid_constant__ Attention a, const __grid_constant__ Given given, const OwnGradients grad) {
  const int64_t unit = (static_cast<int64_t>(blockIdx.x) * row_threads + threadIdx.x) / 32;
  const int64_t row = unit / a.query_heads, b = row / a.tokens, t = row % a.tokens;
  if (b >= a.batch) return;
  const int query_head = static_cast<int>(unit % a.query_heads), P = a.head_size;
  const int at = static_cast<int>(threadIdx.x) % 32;
  const bool own = a.own_k.data != nullptr;
  const float* const q = own ? a.own_q.row(b, t, query_head * P) : nullptr;
  const auto warp_sum = [](float x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
  };
  float grad_q[channels_per_lane] = {};
  for (int head = query_head; head < a.heads; head += a.query_heads) {
    const float *out = given.out.row(b, t, head * P), *grad_out = given.grad_out.row(b, t, head * P);
    float mean = 0.0f;
    for (int p = at; p < P; p += 32) mean = fmaf(out[p], grad_out[p], mean);
    mean = warp_sum(mean);
    if (at == 0) given.means(a, b, head)[t] = mean;
    if (!own) continue;
    const float *k = a.own_k.row(b, t, head * P), *v = a.own_v.row(b, t, head * P);
    float score = 0.0f, grad_weight = 0.0f;
    for (int p = at; p < P; p += 32) {
      score = fmaf(q[p], k[p], score);
      grad_weight = fmaf(grad_out[p], v[p], grad_weight);
    }
    const float weight = exp_of(warp_sum(score) * a.scale - given.lses(a, b, head)[t]);
    const float grad_score = weight * (warp_sum(grad_weight) - mean) * a.scale;
    float *grad_k = grad.k.row(b, t, head * P), *grad_v = grad.v.row(b, t, head * P);
#pragma unroll
    for (int i = 0; i < channels_per_lane; ++i)
      if (const int p = at + 32 * i; p < P) {
        grad_q[i] = fmaf(grad_score, k[p], grad_q[i]);
        grad_k[p] = grad_score * q[p];
        grad_v[p] = weight * grad_out[p];
      }
  }
  if (!own) return;
  float* const to = grad.q.row(b, t, query_head * P);
#pragma unroll
  for (int i = 0; i < channels_per_lane; ++i)
    if (const int p = at + 32 * i; p < P) to[p] = grad_q[i];
}

// lse and m of `Rows` queries into shared memory.
template <int Rows>
__device__ void load_sums(const Attention& a, const Given& given, int64_t b, int head, int64_t token, int rows,
                          float* lse, float* mean) {
  const int r = static_cast<int>(threadIdx.x);
  if (r >= Rows) return;
  lse[r] = r < rows ? given.lses(a, b, head)[token + r] : 0.0f;
  mean[r] = r < rows ? given.means(a, b, head)[token + r] : 0.0f;
}

// A block writes grad_q of a tile of queries of one query head, summed over the heads that share them, in order.
template <class Tile>
__global__ void __launch_bounds__(Tile::threads, query_blocks<Tile>)
    by_query_tile(const __grid_constant__ Attention a, const __grid_constant__ Given given,
                  const __grid_constant__ Tensor<float> grad_q) {
  extern __shared__ float4 shared_memory[];
  __shared__ int seen_begin[Tile::rows], seen_end[Tile::rows];
  __shared__ float lse[Tile::rows], mean[Tile::rows];
  float* const queries = reinterpret_cast<float*>(shared_memory);
  float* const grad_out = queries + Tile::rows * Tile::line;
  float* const keys = grad_out + Tile::rows * Tile::line;  // values first, and then keys
  float* const weights = keys + Tile::stream * Tile::line;
  const int64_t all = a.batch * a.query_heads;
  const int b = static_cast<int>(blockIdx.x % all / a.query_heads);
  const int64_t token = (gridDim.x / all - 1 - blockIdx.x / all) * Tile::rows;  // the longest rows first
  const int query_head = static_cast<int>(blockIdx.x % a.query_heads), P = a.head_size;
  const int rows = static_cast<int>(std::min<int64_t>(Tile::rows, a.tokens - token));
  load_rows<Tile::rows, Tile>(queries, a.q, a.q.row(b, token, query_head * P), rows, P);
  typename Tile::Sums sums;
  clear<Tile>(sums);

  for (int head = query_head; head < a.heads; head += a.query_heads) {
    const int kv_at = head % a.kv_heads * P;
    __syncthreads();
    load_rows<Tile::rows, Tile>(grad_out, given.grad_out, given.grad_out.row(b, token, head * P), rows, P);
    load_sums<Tile::rows>(a, given, b, head, token, rows, lse, mean);
    for (int s = 0; s < a.segments; ++s) {
      const Segment& segment = a.segment[s];
      const int64_t first = segment.first_key(token);
      const int size = static_cast<int>(segment.last_key(token, rows) - first);
      if (size <= 0) continue;
      __syncthreads();
      find_seen<Tile::rows>(segment.range, token, rows, first, seen_begin, seen_end);
      for (int key = 0; key < size; key += Tile::stream) {  // counted from the first
        const int count = std::min(int{Tile::stream}, size - key);
        typename Tile::Scores scores, grads;
        __syncthreads();
        load_rows<Tile::stream, Tile>(keys, segment.v, segment.v.row(b, first + key, kv_at), count, P);
        __syncthreads();
        dot_products<Tile>(grads, grad_out, keys);
        __syncthreads();
        load_rows<Tile::stream, Tile>(keys, segment.k, segment.k.row(b, first + key, kv_at), count, P);
        __syncthreads();
        dot_products<Tile>(scores, queries, keys);
        const int at = key + lane();
#pragma unroll
        for (int i = 0; i < Tile::per_thread; ++i) {
          const int row = first_row() + i * Tile::row_step;
          const int from = seen_begin[row] - at, until = seen_end[row] - at;
#pragma unroll
          for (int j = 0; j < Tile::scores; ++j) {
            const float weight = exp_of(scores[i][j] * a.scale - lse[row]);
            const bool seen = j * lanes >= from && j * lanes < until;
            grads[i][j] = seen ? weight * (grads[i][j] - mean[row]) * a.scale : 0.0f;
          }
        }
        share_weights<Tile>(grads, weights);
        add_weighted<Tile>(sums, weights, keys);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < Tile::per_thread; ++i) {
    const int row = first_row() + i * Tile::row_step;
    if (row < rows)
      write_columns<Tile, false>(grad_q.row(b, token + row, query_head * P), grad_q.quads, sums[i], 1.0f, P);
  }
}

// Where gradients of keys [first, first + count) of a segment go. Where there are too few tiles of keys to fill a GPU,
// the queries that see a tile are cut into parts, whose sums lie in `partial`, (2, parts, B, key heads, count, P).
struct KeyTarget {
  Tensor<float> k, v;
  int64_t first = 0, count = 0;
  int parts = 1;
  float* partial = nullptr;
};

// The queries that see any of keys [first, last) lie in [begin, end).
struct Seers {
  int64_t begin = 0, end = 0;

  __device__ Seers(const KeyRange& range, int64_t tokens, int64_t first, int64_t last) {
    begin = std::min(tokens, std::max<int64_t>(0, (first + 1) * range.chunk_len - range.offset));
    end = range.window < 0 ? tokens : std::max(begin, std::min(tokens, last + range.window));
  }
};

// A block adds up the gradients of a tile of keys of one key head, over the heads that share it and their queries.
template <class Tile>
__global__ void __launch_bounds__(Tile::threads, key_blocks<Tile>)
    by_key_tile(const __grid_constant__ Attention a, const __grid_constant__ Given given, int segment_index,
                const __grid_constant__ KeyTarget target) {
  extern __shared__ float4 shared_memory[];
  __shared__ int seen_begin[Tile::stream], seen_end[Tile::stream];
  __shared__ float lse[Tile::stream], mean[Tile::stream];
  float* const keys = reinterpret_cast<float*>(shared_memory);
  float* const values = keys + Tile::rows * Tile::line;
  float* const queries = values + Tile::rows * Tile::line;
  float* const grad_out = queries + Tile::stream * Tile::line;
  float* const weights = grad_out + Tile::stream * Tile::line;
  const Segment& segment = a.segment[segment_index];
  const int part = static_cast<int>(blockIdx.x) % target.parts, P = a.head_size;
  const int64_t all = a.batch * a.kv_heads, bh = blockIdx.x / target.parts % all;
  const int b = static_cast<int>(bh / a.kv_heads), kv_head = static_cast<int>(bh % a.kv_heads);
  const int64_t offset = blockIdx.x / target.parts / all * Tile::rows, first = target.first + offset;
  const int count = static_cast<int>(std::min<int64_t>(Tile::rows, target.count - offset));
  load_rows<Tile::rows, Tile>(keys, segment.k, segment.k.row(b, first, kv_head * P), count, P);
  load_rows<Tile::rows, Tile>(values, segment.v, segment.v.row(b, first, kv_head * P), count, P);
  typename Tile::Sums grad_k, grad_v;
  clear<Tile>(grad_k);
  clear<Tile>(grad_v);

  const Seers seers(segment.range, a.tokens, first, first + count);
  const int tiles = static_cast<int>((seers.end - seers.begin + Tile::stream - 1) / Tile::stream);
  const int64_t units = static_cast<int64_t>(tiles) * (a.heads / a.kv_heads);
  const int last_unit = static_cast<int>(units * (part + 1) / target.parts);
  for (int unit = static_cast<int>(units * part / target.parts); unit < last_unit; ++unit) {
    const int head = kv_head + unit / tiles * a.kv_heads;
    const int64_t token = seers.begin + static_cast<int64_t>(unit % tiles) * Tile::stream;
    const int rows = static_cast<int>(std::min<int64_t>(Tile::stream, seers.end - token));
    __syncthreads();
    load_rows<Tile::stream, Tile>(queries, a.q, a.q.row(b, token, head % a.query_heads * P), rows, P);
    load_rows<Tile::stream, Tile>(grad_out, given.grad_out, given.grad_out.row(b, token, head * P), rows, P);
    load_sums<Tile::stream>(a, given, b, head, token, rows, lse, mean);
    find_seen<Tile::stream>(segment.range, token, rows, first, seen_begin, seen_end);
    __syncthreads();
    typename Tile::Scores scores, grads;
    dot_products<Tile>(scores, keys, queries);
    dot_products<Tile>(grads, values, grad_out);
#pragma unroll
    for (int j = 0; j < Tile::scores; ++j) {
      const int row = lane() + j * lanes, from = seen_begin[row], until = seen_end[row];
#pragma unroll
      for (int i = 0; i < Tile::per_thread; ++i) {
        const int key = first_row() + i * Tile::row_step;
        const bool seen = key >= from && key < until;
        scores[i][j] = seen ? exp_of(scores[i][j] * a.scale - lse[row]) : 0.0f;
        grads[i][j] = seen ? scores[i][j] * (grads[i][j] - mean[row]) * a.scale : 0.0f;
      }
    }
    share_weights<Tile>(scores, weights);
    add_weighted<Tile>(grad_v, weights, grad_out);
    share_weights<Tile>(grads, weights);
    add_weighted<Tile>(grad_k, weights, queries);
  }

#pragma unroll
  for (int i = 0; i < Tile::per_thread; ++i) {
    const int row = first_row() + i * Tile::row_step;
    if (row >= count) continue;
    if (target.parts == 1) {
      write_columns<Tile, true>(target.k.row(b, first + row, kv_head * P), target.k.quads, grad_k[i], 1.0f, P);
      write_columns<Tile, true>(target.v.row(b, first + row, kv_head * P), target.v.quads, grad_v[i], 1.0f, P);
    } else {
      float* const to = target.partial + ((part * all + bh) * target.count + offset + row) * P;
      write_columns<Tile, false>(to, P % 4 == 0, grad_k[i], 1.0f, P);
      write_columns<Tile, false>(to + target.parts * all * target.count * P, P % 4 == 0, grad_v[i], 1.0f, P);
    }
  }
}

// Adds the parts' sums, in order, to the gradients.
__global__ void __launch_bounds__(row_threads)
    join_parts(const __grid_constant__ KeyTarget target, int64_t batch, int kv_heads, int head_size) {
  const int64_t size = batch * kv_heads * target.count * head_size;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * row_threads + threadIdx.x;
  if (i >= size) return;
  float k = 0.0f, v = 0.0f;
  for (int part = 0; part < target.parts; ++part) {
    k += target.partial[part * size + i];
    v += target.partial[(target.parts + part) * size + i];
  }
  const int64_t key = i / head_size, bh = key / target.count, b = bh / kv_heads;
  const int64_t column = bh % kv_heads * head_size + i % head_size;
  *target.k.row(b, target.first + key % target.count, column) += k;
  *target.v.row(b, target.first + key % target.count, column) += v;
}

constexpr const char* op = "range_attention_backward";

// Parts of the queries that see a tile: by shape alone. A part has at least four tiles of queries to work on.
int parts_for(const Attention& a, int64_t blocks, int64_t stream) {
  constexpr int64_t wanted_blocks = 264;
  const int64_t units = (a.tokens + stream - 1) / stream * (a.heads / a.kv_heads);
  return static_cast<int>(std::clamp<int64_t>(wanted_blocks / blocks, 1, std::max<int64_t>(1, units / 4)));
}

template <class Tile>
Status add_key_gradients(const Attention& a, const Given& given, int segment, const KeyGradients& grad) {
  const KeyRange& range = a.segment[segment].range;
  KeyTarget target{.k = tensor(grad.k, a.head_size), .v = tensor(grad.v, a.head_size)};
  target.first = range.first;
  target.count = range.end(a.tokens - 1) - range.first;
  if (target.count <= 0) return ok();
  const int64_t blocks = (target.count + Tile::rows - 1) / Tile::rows * a.batch * a.kv_heads;
  const int64_t size = a.batch * a.kv_heads * target.count * a.head_size;
  target.parts = parts_for(a, blocks, Tile::stream);
  if (target.parts > 1) {
    const auto partial = scratch<float>(1, 2 * target.parts * size);
    if (!partial) return partial.error();
    target.partial = *partial;
  }
  RAT_TRY(launch(op, by_key_tile<Tile>, blocks * target.parts, Tile::threads, key_memory<Tile>, a, given, segment,
                 target));
  if (target.parts == 1) return ok();
  return launch(op, join_parts, (size + row_threads - 1) / row_threads, row_threads, 0, target, a.batch, a.kv_heads,
                a.head_size);
}

}  // namespace

Status range_attention_backward(const RangeAttentionBackwardArgs& args) {
  if (is_token_attention(args.forward)) return token_attention_backward(args);
  const AttentionShape& shape = args.forward.shape;
  RAT_TRY(fits(op, shape.head_size));
  const Attention a = attention_of(args.forward);
  const auto mean = scratch<float>(0, shape.batch * shape.heads * shape.tokens);
  if (!mean) return mean.error();
  const Given given{tensor(Input(args.forward.out), shape), tensor(args.grad_out, shape), args.forward.lse, *mean};
  const OwnGradients own{tensor(args.grad_own_q, shape), tensor(args.grad_own_k, shape),
                         tensor(args.grad_own_v, shape)};
  const int64_t warps = shape.batch * shape.tokens * a.query_heads;
  RAT_TRY(launch(op, by_query, (warps * 32 + row_threads - 1) / row_threads, row_threads, 0, a, given, own));
  return for_width(shape.head_size, [&](auto width) -> Status {
    using Queries = QueryTile<decltype(width)::value>;
    const int64_t tiles = (shape.tokens + Queries::rows - 1) / Queries::rows;
    RAT_TRY(launch(op, by_query_tile<Queries>, tiles * shape.batch * a.query_heads, Queries::threads,
                   query_memory<Queries>, a, given, tensor(args.grad_q, shape)));
    for (int i = 0; i < a.segments; ++i)
      RAT_TRY(add_key_gradients<KeyTile<decltype(width)::value>>(a, given, i, args.segment(i)));
    return ok();
  });
}

}  // namespace rat::kernels::gpu
