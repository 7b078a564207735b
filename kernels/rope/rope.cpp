#include "kernels/rope/rope.h"

#include <algorithm>
#include <cmath>

namespace rat::kernels {

void RopeTable::ensure(int64_t positions) {
  if (positions <= positions_) return;
  const int64_t half = head_size_ / 2;
  positions = std::max(positions, positions_ * 2);
  std::vector<float> values(static_cast<std::size_t>(2 * positions * half));
  for (int64_t j = 0; j < half; ++j) {
    const double frequency = std::pow(base_, -2.0 * static_cast<double>(j) / static_cast<double>(head_size_));
    for (int64_t p = 0; p < positions; ++p) {
      const double angle = static_cast<double>(p) * frequency;
      values[static_cast<std::size_t>(p * half + j)] = static_cast<float>(std::cos(angle));
      values[static_cast<std::size_t>((positions + p) * half + j)] = static_cast<float>(std::sin(angle));
    }
  }
  auto* data = static_cast<float*>(memory_.ensure(values.size() * sizeof(float)));
  const Status status = upload({.host = values, .device = data}, {.backend = &memory_.backend()});
  RAT_CHECK(bool(status), status.error().message);
  positions_ = positions;
}

Status rope(const RopeArgs& args, const Exec& exec) {
  RAT_TRY(expect_shape("rope", "x", args.x, args.x.rows, args.x.cols));
  RAT_TRY(expect_shape("rope", "y", args.y, args.x.rows, args.x.cols));
  if (args.table == nullptr) return exec.run(&Backend::rope, "rope", args);
  if (args.table->head_size() % 2 != 0 || args.x.cols % args.table->head_size() != 0)
    return fail(ErrorCode::shape_mismatch, "rope: rows of {} columns are not whole heads of even size", args.x.cols);
  if (args.tokens < 1 || args.chunk_len < 1 || args.first < 0)
    return fail(ErrorCode::invalid_argument, "rope: tokens {}, chunk_len {} and first {} are not valid", args.tokens,
                args.chunk_len, args.first);
  const int64_t last = (args.first + std::min(args.tokens, args.x.rows) - 1) / args.chunk_len;
  if (args.x.rows > 0 && last >= args.table->positions())
    return fail(ErrorCode::invalid_argument, "rope: position {} is beyond the table's {}", last,
                args.table->positions());
  return exec.run(&Backend::rope, "rope", args);
}

}  // namespace rat::kernels
