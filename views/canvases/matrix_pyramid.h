// A matrix and its row-reduced copies, so that a map of any size is drawn from about as many values as it has pixels.
// Reduction keeps the extreme value of the cells it merges; it never samples.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace rat::views {

enum class CellKind {
  masked,   // non-negative values; NaN means "no query may see this"; merged by max, NaN only where all are NaN
  signed_,  // merged by largest magnitude; NaN is news and wins
};

// Both rules are written so that the compiler vectorises them.
inline float merge_masked(float kept, float next) { return (next > kept || kept != kept) ? next : kept; }
inline float merge_signed(float kept, float next) {
  return (next != next || std::fabs(next) > std::fabs(kept)) ? next : kept;
}

class MatrixPyramid {
 public:
  MatrixPyramid() = default;
  // Reads values[row * stride + col]; `owner` keeps them alive.
  MatrixPyramid(std::shared_ptr<const void> owner, const float* values, int64_t rows, int64_t cols, int64_t stride,
                CellKind kind);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  CellKind kind() const { return kind_; }
  float at(int64_t row, int64_t col) const { return values_[row * stride_ + col]; }

  // Over all cells; the finite ones decide the range.
  float max_abs() const { return max_abs_; }
  float max() const { return max_; }
  float min() const { return min_; }
  float min_positive() const { return min_positive_; }
  int64_t nan_count() const { return nan_count_; }
  int64_t infinite_count() const { return infinite_count_; }
  // |x| below which `share` of the finite cells lie (resolution: 1/4096 of the largest).
  float magnitude_quantile(double share) const;

  // Merges rows [row_begin, row_end) of columns [col_begin, col_begin + out.size()) into `out`. Levels of at most
  // (row_end - row_begin) / 2 rows are used, so that at most half of that many rows beside the range can shine in.
  void merge_rows(int64_t row_begin, int64_t row_end, int64_t col_begin, std::span<float> out) const;
  // Merges values[begin, end).
  float merge(std::span<const float> values) const;

 private:
  struct Level {
    int64_t rows_per_cell;
    std::vector<float> values;  // (ceil(rows / rows_per_cell), cols)
  };
  void scan_range();
  void build_level();
  const float* level_row(int level, int64_t row) const;

  std::shared_ptr<const void> owner_;
  const float* values_ = nullptr;
  int64_t rows_ = 0, cols_ = 0, stride_ = 0;
  CellKind kind_ = CellKind::masked;
  float max_abs_ = 0, max_ = 0, min_ = 0, min_positive_ = 0;
  int64_t nan_count_ = 0, infinite_count_ = 0;
  std::vector<Level> levels_;  // 4, 16, 64, ... rows a cell
};

}  // namespace rat::views
