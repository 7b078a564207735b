// A view of rows in memory: what every kernel reads and writes. Element (i, j) is data[i * stride + j]. (constexpr: what
// device code may call.)
#pragma once

#include <cstdint>
#include <string>

#include "kernels/base/status.h"

namespace rat::kernels {

template <class T>
struct Rows {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements from one row to the next; at least cols

  Rows() = default;
  Rows(T* data_, int64_t rows_, int64_t cols_) : Rows(data_, rows_, cols_, cols_) {}
  Rows(T* data_, int64_t rows_, int64_t cols_, int64_t stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}

  constexpr T* row(int64_t i) const { return data + i * stride; }
  // Columns [begin, begin + count) of every row.
  Rows columns(int64_t begin, int64_t count) const { return {data + begin, rows, count, stride}; }
  Rows row_range(int64_t begin, int64_t count) const { return {row(begin), count, cols, stride}; }
  operator Rows<const T>() const { return {data, rows, cols, stride}; }
};

using Input = Rows<const float>;
using Output = Rows<float>;

template <class T>
std::string shape_text(const Rows<T>& view) {
  return fmt::format("({}, {})", view.rows, view.cols);
}

// One sentence per wrong view: a size other than expected; of expect_shape also missing memory.
template <class T>
Status expect_size(const char* op, const char* name, const Rows<T>& view, int64_t rows, int64_t cols) {
  if (view.rows != rows || view.cols != cols)
    return fail(ErrorCode::shape_mismatch, "{}: {} is {} but must be ({}, {})", op, name, shape_text(view), rows, cols);
  if (view.stride < view.cols)
    return fail(ErrorCode::shape_mismatch, "{}: {} has row stride {} below its {} columns", op, name, view.stride,
                cols);
  return ok();
}
template <class T>
Status expect_shape(const char* op, const char* name, const Rows<T>& view, int64_t rows, int64_t cols) {
  RAT_TRY(expect_size(op, name, view, rows, cols));
  if (view.data == nullptr && rows * cols > 0)
    return fail(ErrorCode::invalid_argument, "{}: {} has no memory", op, name);
  return ok();
}

}  // namespace rat::kernels
