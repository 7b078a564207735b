// Embedding rows. Backward: the host sorts the rows by id, so that each sum is made in order by four threads per column,
// whose sums are joined in order; an id with very many rows is cut into pieces, whose sums are joined in order, too.
#include <cuda_bf16.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda_ops.h"
#include "kernels/embedding/embedding.h"

namespace rat::kernels::gpu {
namespace {

constexpr int threads = 256, columns_per_block = 128, quarters = 4;  // of a piece
constexpr int32_t rows_per_piece = 512;

// A warp per row.
__global__ void __launch_bounds__(threads) gather(const int32_t* ids, Input table, Output out) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (threads / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= out.rows) return;
  const float* from = table.data + ids[row] * table.stride;
  float* to = out.data + row * out.stride;
  const bool wide = (reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to)) % sizeof(float4) == 0;
  const int64_t quads = wide ? out.cols / 4 : 0;
  for (int64_t q = lane; q < quads; q += 32)
    reinterpret_cast<float4*>(to)[q] = reinterpret_cast<const float4*>(from)[q];
  for (int64_t c = 4 * quads + lane; c < out.cols; c += 32) to[c] = from[c];
}

// Rows order[begin .. end) of one id; `partial`: where the sum goes, or -1 for the table itself.
struct Piece {
  int32_t id, begin, end, partial;
};
// The partial sums of one id.
struct Join {
  int32_t id, begin, end;
};

// In bf16, without gaps, where that is not null; else in f32.
struct Gradients {
  Input f32;
  const __nv_bfloat16* bf16;
  __device__ float at(int64_t row, int64_t column) const {
    return bf16 != nullptr ? __bfloat162float(bf16[row * f32.cols + column]) : f32.data[row * f32.stride + column];
  }
};

__global__ void __launch_bounds__(columns_per_block* quarters)
    sum_pieces(const Piece* pieces, const int32_t* order, Gradients grad, Output table, float* partials) {
  __shared__ float sums[quarters][columns_per_block];
  const Piece piece = pieces[blockIdx.x];
  const int64_t c = static_cast<int64_t>(blockIdx.y) * columns_per_block + threadIdx.x;
  const auto bound = [&](unsigned quarter) {
    return piece.begin + static_cast<int32_t>((piece.end - piece.begin) * quarter / quarters);
  };
  float sum = 0.0f;
  if (c < table.cols)
#pragma unroll 8
    for (int32_t i = bound(threadIdx.y); i < bound(threadIdx.y + 1); ++i) sum += grad.at(order[i], c);
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= table.cols) return;
  float* const to =
      piece.partial < 0 ? table.data + piece.id * table.stride + c : partials + piece.partial * table.cols + c;
  sum = piece.partial < 0 ? *to : 0.0f;
  for (int quarter = 0; quarter < quarters; ++quarter) sum += sums[quarter][threadIdx.x];
  *to = sum;
}

__global__ void __launch_bounds__(columns_per_block) join_pieces(const Join* joins, const float* partials,
                                                                 Output table) {
  const Join join = joins[blockIdx.x];
  const int64_t c = static_cast<int64_t>(blockIdx.y) * columns_per_block + threadIdx.x;
  if (c >= table.cols) return;
  float* const to = table.data + join.id * table.stride + c;
  float sum = *to;
#pragma unroll 8
  for (int64_t i = join.begin; i < join.end; ++i) sum += partials[i * table.cols + c];
  *to = sum;
}

// What the kernels above need to know of the ids. Kept per thread for its memory.
struct SortedIds {
  std::vector<int32_t> ends, order;
  std::vector<Piece> pieces;
  std::vector<Join> joins;
  int32_t partials = 0;

  void sort(std::span<const int32_t> ids, int64_t vocab) {
    ends.assign(static_cast<std::size_t>(vocab), 0);
    order.resize(ids.size());
    for (const int32_t id : ids) ++ends[static_cast<std::size_t>(id)];
    int32_t begin = 0;
    for (int32_t& end : ends) begin += std::exchange(end, begin);  // for now: where the id's rows begin
    for (std::size_t i = 0; i < ids.size(); ++i)
      order[static_cast<std::size_t>(ends[static_cast<std::size_t>(ids[i])]++)] = static_cast<int32_t>(i);
    cut();
  }

 private:
  void cut() {
    pieces.clear();
    joins.clear();
    partials = 0;
    int32_t begin = 0;
    for (std::size_t id = 0; id < ends.size(); begin = ends[id++]) add(static_cast<int32_t>(id), begin, ends[id]);
  }
  void add(int32_t id, int32_t begin, int32_t end) {
    if (begin == end) return;
    if (end - begin <= rows_per_piece) return pieces.push_back({id, begin, end, -1});
    const int32_t first = partials;
    for (; begin < end; begin += rows_per_piece)
      pieces.push_back({id, begin, std::min(begin + rows_per_piece, end), partials++});
    joins.push_back({id, first, partials});
  }
};

template <class T>
Result<T*> uploaded(int slot, const std::vector<T>& values) {
  auto device = scratch<T>(slot, static_cast<int64_t>(values.size()));
  if (!device) return device.error();
  RAT_TRY(to_device(*device, values.data(), values.size() * sizeof(T)));
  return *device;
}

}  // namespace

Status embedding(const EmbeddingArgs& args) {
  if (args.out.rows == 0) return ok();
  auto ids = scratch<int32_t>(0, args.out.rows);
  if (!ids) return ids.error();
  RAT_TRY(to_device(*ids, args.ids.data(), args.ids.size_bytes()));
  gather<<<blocks_for(args.out.rows, threads / 32), threads, 0, stream()>>>(*ids, args.table, args.out);
  return launched("embedding");
}

Status embedding_backward(const EmbeddingBackwardArgs& args) {
  static thread_local SortedIds sorted;
  if (args.ids.empty() || args.grad_table.cols == 0) return ok();
  sorted.sort(args.ids, args.grad_table.rows);
  auto order = uploaded(0, sorted.order);
  if (!order) return order.error();
  auto pieces = uploaded(1, sorted.pieces);
  if (!pieces) return pieces.error();
  auto partials = scratch<float>(2, std::max<int64_t>(1, sorted.partials * args.grad_table.cols));
  if (!partials) return partials.error();
  const unsigned column_blocks = blocks_for(args.grad_table.cols, columns_per_block);
  sum_pieces<<<dim3(static_cast<unsigned>(sorted.pieces.size()), column_blocks), dim3(columns_per_block, quarters), 0,
               stream()>>>(*pieces, *order, {args.grad_out, reinterpret_cast<const __nv_bfloat16*>(args.grad_out_bf16)},
                           args.grad_table, *partials);
  RAT_TRY(launched("embedding_backward"));
  if (sorted.joins.empty()) return ok();
  auto joins = uploaded(3, sorted.joins);
  if (!joins) return joins.error();
  join_pieces<<<dim3(static_cast<unsigned>(sorted.joins.size()), column_blocks), columns_per_block, 0, stream()>>>(
      *joins, *partials, args.grad_table);
  return launched("embedding_backward");
}

}  // namespace rat::kernels::gpu
