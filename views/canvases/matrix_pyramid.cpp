#include "views/canvases/matrix_pyramid.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

namespace rat::views {
namespace {

constexpr float largest_float = std::numeric_limits<float>::max();
constexpr int64_t level_factor = 4;
constexpr int64_t smallest_level_rows = 512;  // a matrix this small is merged on the fly

void merge_into(CellKind kind, float* __restrict kept, const float* __restrict next, int64_t count) {
  if (kind == CellKind::masked) {
    for (int64_t i = 0; i < count; ++i) kept[i] = merge_masked(kept[i], next[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) kept[i] = merge_signed(kept[i], next[i]);
  }
}

}  // namespace

MatrixPyramid::MatrixPyramid(std::shared_ptr<const void> owner, const float* values, int64_t rows, int64_t cols,
                             int64_t stride, CellKind kind)
    : owner_(std::move(owner)), values_(values), rows_(rows), cols_(cols), stride_(stride), kind_(kind) {
  scan_range();
  while ((levels_.empty() ? rows_ : static_cast<int64_t>(levels_.back().values.size()) / std::max<int64_t>(cols_, 1)) >
         smallest_level_rows)
    build_level();
}

namespace {

// Running extremes side by side in lanes: a single running minimum would not vectorise. NaN never compares, so it is
// passed over; `unusual` counts NaN and infinities.
struct Lanes {
  static constexpr int count = 16;
  float low[count], high[count], positive[count];
  int unusual[count];

  void take(const float* x) {
    for (int k = 0; k < count; ++k) {
      const float positive_part = x[k] > 0 ? x[k] : largest_float;
      low[k] = x[k] < low[k] ? x[k] : low[k];
      high[k] = x[k] > high[k] ? x[k] : high[k];
      positive[k] = positive_part < positive[k] ? positive_part : positive[k];
      unusual[k] += std::fabs(x[k]) <= largest_float ? 0 : 1;
    }
  }
};

}  // namespace

void MatrixPyramid::scan_range() {
  float low = largest_float, high = -largest_float, positive = largest_float;
  const auto one = [&](float x) {
    if (!std::isfinite(x)) {
      ++(std::isnan(x) ? nan_count_ : infinite_count_);
      return;
    }
    low = std::min(low, x), high = std::max(high, x);
    if (x > 0) positive = std::min(positive, x);
  };
  for (int64_t r = 0; r < rows_; ++r) {
    const float* row = values_ + r * stride_;
    Lanes lanes;
    for (int k = 0; k < Lanes::count; ++k)
      lanes.low[k] = largest_float, lanes.high[k] = -largest_float, lanes.positive[k] = largest_float,
      lanes.unusual[k] = 0;
    const int64_t whole = cols_ / Lanes::count * Lanes::count;
    for (int64_t c = 0; c < whole; c += Lanes::count) lanes.take(row + c);
    for (int64_t c = whole; c < cols_; ++c) one(row[c]);
    const float row_low = *std::min_element(lanes.low, lanes.low + Lanes::count);
    const float row_high = *std::max_element(lanes.high, lanes.high + Lanes::count);
    if (row_low < -largest_float || row_high > largest_float) {  // an infinity: cell by cell
      for (int64_t c = 0; c < whole; ++c) one(row[c]);
      continue;
    }
    low = std::min(low, row_low), high = std::max(high, row_high);
    positive = std::min(positive, *std::min_element(lanes.positive, lanes.positive + Lanes::count));
    nan_count_ += std::accumulate(lanes.unusual, lanes.unusual + Lanes::count, int64_t{0});
  }
  if (!(low <= high)) low = high = 0;
  min_ = low, max_ = high;
  max_abs_ = std::max(std::fabs(low), std::fabs(high));
  min_positive_ = positive < largest_float ? positive : 0;
}

void MatrixPyramid::build_level() {
  const int level = static_cast<int>(levels_.size()) - 1;
  const int64_t below = levels_.empty() ? 1 : levels_.back().rows_per_cell;
  Level next{below * level_factor, {}};
  const int64_t cells = (rows_ + next.rows_per_cell - 1) / next.rows_per_cell;
  next.values.resize(static_cast<std::size_t>(cells * cols_));
  const int64_t rows_below = (rows_ + below - 1) / below;
  for (int64_t cell = 0; cell < cells; ++cell) {
    float* out = next.values.data() + cell * cols_;
    std::copy_n(level_row(level, cell * level_factor), cols_, out);
    for (int64_t r = cell * level_factor + 1; r < std::min((cell + 1) * level_factor, rows_below); ++r)
      merge_into(kind_, out, level_row(level, r), cols_);
  }
  levels_.push_back(std::move(next));
}

const float* MatrixPyramid::level_row(int level, int64_t row) const {
  return level < 0 ? values_ + row * stride_ : levels_[static_cast<std::size_t>(level)].values.data() + row * cols_;
}

void MatrixPyramid::merge_rows(int64_t row_begin, int64_t row_end, int64_t col_begin, std::span<float> out) const {
  row_begin = std::clamp<int64_t>(row_begin, 0, rows_ - 1);
  row_end = std::clamp<int64_t>(row_end, row_begin + 1, rows_);
  int level = -1;
  int64_t per_cell = 1;
  for (std::size_t i = 0; i < levels_.size() && 2 * levels_[i].rows_per_cell <= row_end - row_begin; ++i)
    level = static_cast<int>(i), per_cell = levels_[i].rows_per_cell;
  const auto count = static_cast<int64_t>(out.size());
  const int64_t first = row_begin / per_cell, last = (row_end - 1) / per_cell;
  std::copy_n(level_row(level, first) + col_begin, count, out.data());
  for (int64_t r = first + 1; r <= last; ++r) merge_into(kind_, out.data(), level_row(level, r) + col_begin, count);
}

float MatrixPyramid::merge(std::span<const float> values) const {
  float kept = values[0];
  for (const float next : values.subspan(1))
    kept = kind_ == CellKind::masked ? merge_masked(kept, next) : merge_signed(kept, next);
  return kept;
}

float MatrixPyramid::magnitude_quantile(double share) const {
  if (!(max_abs_ > 0)) return 0;
  std::array<int64_t, 4096> counts{};
  int64_t total = 0;
  const float to_bin = static_cast<float>(counts.size() - 1) / max_abs_;
  for (int64_t r = 0; r < rows_; ++r)
    for (int64_t c = 0; c < cols_; ++c)
      if (const float size = std::fabs(at(r, c)); size <= max_abs_)
        ++counts[static_cast<std::size_t>(size * to_bin)], ++total;
  int64_t below = 0;
  for (std::size_t bin = 0; bin < counts.size(); ++bin) {
    below += counts[bin];
    if (static_cast<double>(below) >= share * static_cast<double>(total))
      return std::min(static_cast<float>(bin + 1) / to_bin, max_abs_);
  }
  return max_abs_;
}

}  // namespace rat::views
