// The feed-forward half in bf16. Rows go by in blocks that stay in a core's cache; of what is as wide as the hidden
// layer, only bf16 goes to memory. Gradients of weights follow in a second pass, cut into tiles by shape alone, so
// that no sum depends on the number of threads.
#include <algorithm>
#include <array>

#include "kernels/base/parallel.h"
#include "kernels/base/scratch.h"
#include "kernels/cpu_ops.h"
#include "kernels/feed_forward/blocks.h"
#include "kernels/feed_forward/feed_forward.h"
#include "kernels/matmul/few_rows.h"
#include "kernels/rms_norm/rms_norm.h"

namespace rat::kernels::cpu {
namespace {

constexpr int64_t side = square_side;

const FeedForwardKernels* kernels() { return amx_feed_forward() ? amx_feed_forward() : avx512_bf16_feed_forward(); }

int64_t padded(int64_t rows) { return (rows + side - 1) / side * side; }

int64_t block_rows(int64_t rows) { return std::clamp<int64_t>(rows / 8 / side * side, side, 128); }

// Panels of op(W), whose k and columns are these; W is (cols, k) where `transposed`.
void pack(const uint16_t* weight, bool transposed, int64_t k, int64_t cols, uint16_t* out) {
  parallel_ranges(cols / side, 4, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j)
      pack_rounded(transposed ? weight + j * side * k : weight + j * side, transposed ? k : cols, transposed, k,
                   out + j * side * k);
  });
}

// What backward keeps between its two passes.
struct Gradients {
  RowSquares normed, grad_y, hidden, grad_hidden;

  Gradients(const FeedForwardShape& s, Scratch& scratch) {
    const int64_t narrow = RowSquares::elements(s.rows, s.channels), wide = RowSquares::elements(s.rows, s.hidden);
    auto* const data = scratch.ensure<uint16_t>(2 * (narrow + wide));
    normed = {data, s.channels};
    grad_y = {data + narrow, s.channels};
    hidden = {data + 2 * narrow, s.hidden};
    grad_hidden = {data + 2 * narrow + wide, s.hidden};
  }
};

}  // namespace

bool fuses_feed_forward(const FeedForwardShape& s) {
  return kernels() != nullptr && s.rows >= side && s.channels % side == 0 && s.hidden % side == 0;
}

std::size_t feed_forward_saved(const FeedForwardShape& s) {
  return static_cast<std::size_t>(padded(s.rows) * s.hidden) * sizeof(uint16_t);
}

Status feed_forward(const FeedForwardArgs& args) {
  const auto& [N, D, F] = args.shape;
  static thread_local Scratch packed;  // of the caller; the blocks read it
  auto* const fc1 = packed.ensure<uint16_t>(2 * D * F);
  auto* const fc2 = fc1 + D * F;
  pack(args.fc1, true, D, F, fc1);
  pack(args.fc2, true, F, D, fc2);
  parallel_ranges(N, block_rows(N), [&, D = D, F = F](int64_t begin, int64_t end) {
    static thread_local Scratch scratch;
    const int64_t count = end - begin;
    const Output normed(scratch.ensure<float>(count * D), count, D);
    (void)rms_norm({.x = args.x.row_range(begin, count), .weight = args.norm, .y = normed});  // cannot fail
    kernels()->forward({.of = {normed.data, count, D, F, static_cast<uint16_t*>(args.saved) + begin * F},
                        .fc1 = fc1,
                        .fc2 = fc2,
                        .x = args.x.row(begin),
                        .y = args.y.row(begin)});
  });
  return ok();
}

Status feed_forward_backward(const FeedForwardBackwardArgs& args) {
  const auto& [N, D, F] = args.forward.shape;
  static thread_local Scratch packed, between, sums;  // of the caller; the blocks read and write them
  auto* const fc2 = packed.ensure<uint16_t>(2 * D * F);
  auto* const fc1 = fc2 + D * F;
  pack(args.forward.fc2, false, D, F, fc2);
  pack(args.forward.fc1, false, F, D, fc1);
  const Gradients to(args.forward.shape, between);
  const int64_t block = block_rows(N), blocks = (N + block - 1) / block;
  float* const grad_norm = sums.ensure<float>(blocks * D);
  std::fill_n(grad_norm, blocks * D, 0.0f);
  parallel_ranges(N, block, [&, D = D, F = F](int64_t begin, int64_t end) {
    static thread_local Scratch scratch;
    const int64_t count = end - begin;
    const Output normed(scratch.ensure<float>(2 * count * D), count, D), narrow(normed.row(count), count, D);
    const Output grad = args.grad.values.row_range(begin, count);
    const Input x = args.forward.x.row_range(begin, count);
    (void)rms_norm({.x = x, .weight = args.forward.norm, .y = normed});  // cannot fail
    kernels()->backward({.of = {normed.data, count, D, F, static_cast<uint16_t*>(args.forward.saved) + begin * F},
                         .fc2 = fc2,
                         .fc1 = fc1,
                         .grad = grad.data,
                         .grad_normed = narrow.data,
                         .first_row = begin,
                         .normed = to.normed,
                         .grad_y = to.grad_y,
                         .hidden = to.hidden,
                         .grad_hidden = to.grad_hidden});
    (void)rms_norm_backward({.x = x,
                             .weight = args.forward.norm,
                             .grad_y = narrow,
                             .grad_x = grad,
                             .grad_weight = {grad_norm + begin / block * D, static_cast<std::size_t>(D)},
                             .add_grad_x = true});
    round_to_bf16(grad.data, count * D, args.grad.rounded + begin * D);
  });
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t d = 0; d < D; ++d) args.grad_norm[static_cast<std::size_t>(d)] += grad_norm[b * D + d];
  add_weight_gradients(std::array<WeightGradient, 2>{
      {{to.normed, to.grad_hidden, N, args.grad_fc1.data(), true, 0, D, 0, F},
       {to.grad_y, to.hidden, N, args.grad_fc2.data(), false, 0, D, 0, F}}});
  return ok();
}

}  // namespace rat::kernels::cpu
