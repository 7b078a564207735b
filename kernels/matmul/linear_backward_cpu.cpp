#include <algorithm>
#include <array>

#include "kernels/base/parallel.h"
#include "kernels/base/scratch.h"
#include "kernels/matmul/bf16_squares.h"
#include "kernels/matmul/linear_backward.h"
#include "kernels/matmul/packed_matrix.h"

namespace rat::kernels::cpu {

bool rounds_once(const LinearBackwardArgs& args) {
  const auto whole = [](int64_t n) { return n > 0 && n % square_side == 0; };
  const auto dense = [](const auto& rows) { return rows.stride == rows.cols; };
  return args.dtype == Dtype::bf16 && square_kernels() != nullptr && args.x.rows >= square_side && whole(args.x.cols) &&
         whole(args.grad_y.cols) && dense(args.grad_x) && dense(args.grad_weight);
}

Status linear_backward(const LinearBackwardArgs& args) {
  const int64_t rows = args.x.rows, in = args.x.cols, out = args.grad_y.cols;
  static thread_local PackedMatrix weight;  // of the caller, as the next; the blocks read it
  static thread_local Scratch between;      // and write to this
  RAT_TRY(weight.pack(args.weight, false, Dtype::bf16));
  const auto* const panels = reinterpret_cast<const uint16_t*>(weight.panel(0));
  auto* const memory = between.ensure<uint16_t>(RowSquares::elements(rows, in) + RowSquares::elements(rows, out));
  const RowSquares x{memory, in}, grad_y{memory + RowSquares::elements(rows, in), out};
  constexpr int64_t block = 2 * square_side;
  parallel_ranges(rows, block, [&](int64_t begin, int64_t end) {
    static thread_local Scratch scratch;
    auto* const squares = scratch.ensure<uint16_t>(block * out);
    for (int64_t row = begin; row < end; row += square_side) {
      const int64_t count = std::min(square_side, end - row);
      rows_to_squares_and_pairs(args.grad_y.row(row), args.grad_y.stride, count, row, grad_y,
                                squares + (row - begin) * out);
      columns_to_squares(args.x.row(row), args.x.stride, count, row, x);
    }
    square_kernels()->multiply({.a = squares,
                                .rows = end - begin,
                                .k = out,
                                .panels = panels,
                                .cols = in,
                                .c = args.grad_x.row(begin)});
  });
  add_weight_gradients(std::array<WeightGradient, 1>{{{x, grad_y, rows, args.grad_weight.data, true, 0, in, 0, out}}});
  return ok();
}

}  // namespace rat::kernels::cpu
