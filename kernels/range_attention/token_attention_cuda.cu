#include "kernels/cuda/attention_layer.h"
#include "kernels/cuda/blocks.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/layer_step/layer_step_cuda.h"
#include "kernels/range_attention/token_attention_cuda.h"

namespace rat::kernels::gpu {
namespace {

using cuda::bf16;

constexpr int threads = 256, wide = 8;  // values of a thread
constexpr const char* op = "range_attention";

// Row b*T + t of a tensor, with `cols` columns: heads that share them read column c % cols.
template <class T>
struct Tokens {
  T* data = nullptr;
  int64_t stride = 0, sequence_stride = 0, cols = 0;
  bool aligned = false;  // every row to 16 bytes

  Tokens() = default;
  Tokens(const Rows<T>& rows, int64_t tokens)
      : Tokens(Sequences<T>{rows.data, rows.stride, tokens * rows.stride}, rows.cols) {}
  Tokens(const Sequences<T>& rows, int64_t columns)
      : data(rows.data),
        stride(rows.stride),
        sequence_stride(rows.sequence_stride),
        cols(columns),
        aligned(reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 4 == 0 && sequence_stride % 4 == 0) {}
  __device__ T* row(int64_t n, int64_t tokens) const {
    return data + n / tokens * sequence_stride + n % tokens * stride;
  }
};

// f32 rows against bf16 rows (N, D) without gaps, several tensors in one launch.
template <class T>
struct Pairs {
  static constexpr int most = 4;
  Tokens<T> rows[most];
  bf16* packed[most];
  bool add[most];
  int count = 0;
  int64_t tokens, channels, items;  // items: of wide values, in a packed tensor

  explicit Pairs(const AttentionShape& s)
      : tokens(s.tokens), channels(s.channels()), items(s.batch * s.tokens * s.channels() / wide) {}
  Pairs& with(const Tokens<T>& x, bf16* y, bool added = false) {
    rows[count] = x, packed[count] = y, add[count++] = added;
    return *this;
  }
  dim3 grid() const { return dim3(blocks_for(items, threads), static_cast<unsigned>(count)); }
};

// packed[n, c] = rows[n, c % cols]
__global__ void __launch_bounds__(threads) round_rows(const __grid_constant__ Pairs<const float> a) {
  const int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i >= a.items) return;
  const int64_t n = i * wide / a.channels, c = i * wide % a.channels;
  const Tokens<const float>& x = a.rows[blockIdx.y];
  const float* const from = x.row(n, a.tokens) + c % x.cols;
  float values[wide];
  if (x.aligned) {
    cuda::load<wide>(from, values);
  } else {
#pragma unroll
    for (int j = 0; j < wide; ++j) values[j] = from[j];
  }
  cuda::store<wide>(a.packed[blockIdx.y] + i * wide, values);
}

// rows[n, c] (+)= the sum over the heads that share column c of packed[n, ...]
__global__ void __launch_bounds__(threads) spread_rows(const __grid_constant__ Pairs<float> a) {
  const int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i >= a.items) return;
  const int64_t n = i * wide / a.channels, c = i * wide % a.channels;
  const Tokens<float>& y = a.rows[blockIdx.y];
  if (c >= y.cols) return;
  float* const to = y.row(n, a.tokens) + c;
  float sum[wide] = {};
  if (a.add[blockIdx.y]) {
#pragma unroll
    for (int j = 0; j < wide; ++j) sum[j] = to[j];
  }
  for (int64_t at = c; at < a.channels; at += y.cols) {
    float values[wide];
    cuda::load<wide>(a.packed[blockIdx.y] + n * a.channels + at, values);
#pragma unroll
    for (int j = 0; j < wide; ++j) sum[j] += values[j];
  }
  if (y.aligned) return cuda::store<wide>(to, sum);
#pragma unroll
  for (int j = 0; j < wide; ++j) to[j] = sum[j];
}

Status round(const Pairs<const float>& pairs) {
  round_rows<<<pairs.grid(), threads, 0, stream()>>>(pairs);
  return launched(op);
}
Status spread(const Pairs<float>& pairs) {
  spread_rows<<<pairs.grid(), threads, 0, stream()>>>(pairs);
  return launched(op);
}

cuda::RatShape shape_of(const AttentionShape& s) {
  return cuda::attention_shape(s.batch, s.tokens, s.heads, s.head_size, s.range.window);
}

// (N, D) each, of the call.
struct Packed {
  bf16 *q, *k, *v, *out;
  bf16 *grad_out = nullptr, *grad_q = nullptr, *grad_k = nullptr, *grad_v = nullptr;
  float *delta = nullptr, *sums = nullptr;  // (B*H, T); of gradients of queries, where the path sums them in memory
  int* turns = nullptr;
  std::size_t bytes;

  Packed(const AttentionShape& s, bool backward, void* block) {
    const int64_t cells = s.batch * s.tokens * s.channels();
    Cutter cutter(block);
    for (bf16** const part : {&q, &k, &v, &out}) *part = cutter.take<bf16>(cells);
    if (backward) {
      for (bf16** const part : {&grad_out, &grad_q, &grad_k, &grad_v}) *part = cutter.take<bf16>(cells);
      delta = cutter.take<float>(s.batch * s.heads * s.tokens);
      const cuda::RatShape shape = shape_of(s);
      sums = cutter.take<float>(cuda::token_gradient_sums(shape, cuda::best_backward_path<bf16>(shape)));
      turns = cutter.take<int>(cuda::chunk_attention_turns(shape));
    }
    bytes = cutter.used();
  }
};

template <class T>
cuda::KeyRows<T> heads_of(T* data, const AttentionShape& s) {
  return cuda::heads_of(data, shape_of(s), s.channels());
}

Pairs<const float> inputs(const RangeAttentionArgs& a, const Packed& packed) {
  const AttentionShape& s = a.shape;
  Pairs<const float> pairs(s);
  pairs.with({a.q, s.tokens}, packed.q).with({a.k, s.kv_columns()}, packed.k).with({a.v, s.kv_columns()}, packed.v);
  return pairs;
}

}  // namespace

bool is_token_attention(const RangeAttentionArgs& a) {
  const AttentionShape& s = a.shape;
  const KeyRange& range = s.range;
  return a.dtype == Dtype::bf16 && a.more_count == 0 && a.own_k.data == nullptr && range.chunk_len == 1 &&
         range.offset == 1 && range.first == 0 && range.limit < 0 && s.keys == s.tokens && a.q.cols == s.channels() &&
         a.lse.stride == s.tokens && on_tensor_cores(s.head_size) && cuda::check_shape(op, shape_of(s)).ok();
}

Status token_attention(const RangeAttentionArgs& a) {
  const AttentionShape& s = a.shape;
  RAT_ASSIGN(void* const block, scratch_bytes(0, Packed(s, false, nullptr).bytes));
  const Packed packed(s, false, block);
  RAT_TRY(round(inputs(a, packed)));
  cuda::ChunkAttentionArgs<bf16> args;
  args.shape = shape_of(s);
  args.q_rot = packed.q;
  args.keys = read_only(heads_of(packed.k, s)), args.values = read_only(heads_of(packed.v, s));
  args.y = packed.out, args.lse = a.lse.data;
  RAT_TRY(answer(cuda::chunk_attention<bf16>(args, cuda::best_path<bf16>(s.head_size), stream())));
  return spread(Pairs<float>(s).with({a.out, s.tokens}, packed.out));
}

Status token_attention_backward(const RangeAttentionBackwardArgs& a) {
  const AttentionShape& s = a.forward.shape;
  RAT_ASSIGN(void* const block, scratch_bytes(0, Packed(s, true, nullptr).bytes));
  const Packed packed(s, true, block);
  RAT_TRY(round(inputs(a.forward, packed)));
  RAT_TRY(round(Pairs<const float>(s)
                    .with({Input(a.forward.out), s.tokens}, packed.out)
                    .with({a.grad_out, s.tokens}, packed.grad_out)));
  cuda::OutputGateBackwardArgs<bf16> sums;  // without a gate only the rows' sums
  sums.shape = shape_of(s), sums.grad_y = packed.grad_out, sums.y = packed.out, sums.delta = packed.delta;
  RAT_TRY(answer(cuda::output_gate_backward<bf16>(sums, stream())));
  cuda::ChunkAttentionBackwardArgs<bf16> args;
  args.shape = shape_of(s);
  args.q_rot = packed.q;
  args.keys = read_only(heads_of(packed.k, s)), args.values = read_only(heads_of(packed.v, s));
  args.grad_out = packed.grad_out, args.lse = a.forward.lse.data, args.delta = packed.delta;
  args.grad_q_rot = packed.sums, args.turns = packed.turns;
  args.token_gradients = {heads_of(packed.grad_q, s), heads_of(packed.grad_k, s), heads_of(packed.grad_v, s)};
  RAT_TRY(answer(cuda::chunk_attention_backward<bf16>(args, cuda::best_backward_path<bf16>(args.shape), stream())));
  return spread(Pairs<float>(s)
                    .with({a.grad_q, s.tokens}, packed.grad_q)
                    .with({a.grad_k, s.kv_columns()}, packed.grad_k, true)
                    .with({a.grad_v, s.kv_columns()}, packed.grad_v, true));
}

}  // namespace rat::kernels::gpu
