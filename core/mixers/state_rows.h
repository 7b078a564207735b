// Rows that generation remembers, in the backend's memory.
#pragma once

#include <vector>

#include "kernels/memory/memory.h"

namespace rat {

class StateRows {
 public:
  StateRows(const kernels::Backend& backend, int64_t width) : memory_(backend), width_(width) {}

  // Rows of zeros.
  StateRows(const kernels::Backend& backend, int64_t rows, int64_t width) : StateRows(backend, width) {
    resize(rows);
    if (const Status status = zero(); !status) throw kernels::DeviceFailure(status.error().message);
  }

  // The first rows stay; new ones are undefined.
  void resize(int64_t rows) {
    memory_.grow(static_cast<std::size_t>(rows * width_) * sizeof(float));
    rows_ = rows;
  }
  Status zero() { return kernels::zero({.x = all()}, {.backend = &memory_.backend()}); }
  int64_t rows() const { return rows_; }
  int64_t bytes() const { return rows_ * width_ * static_cast<int64_t>(sizeof(float)); }
  float* row(int64_t i) { return data() + i * width_; }
  kernels::Output all() { return {data(), rows_, width_}; }
  kernels::Input all() const { return {data(), rows_, width_}; }
  kernels::Output range(int64_t begin, int64_t count) { return {row(begin), count, width_}; }

  // Every block of `block` rows `times` times, copies of a block beside each other.
  Result<StateRows> repeated(int64_t block, int64_t times) const {
    StateRows copy(memory_.backend(), width_);
    copy.resize(rows_ * times);
    std::vector<int32_t> from(static_cast<std::size_t>(copy.rows_));
    for (int64_t i = 0; i < copy.rows_; ++i)
      from[static_cast<std::size_t>(i)] = static_cast<int32_t>(i / (block * times) * block + i % block);
    RAT_TRY(kernels::copy_rows({.x = all(), .y = copy.all(), .rows = from}, {.backend = &memory_.backend()}));
    return copy;
  }

 private:
  float* data() const { return static_cast<float*>(memory_.data()); }
  kernels::Memory memory_;
  int64_t width_, rows_ = 0;
};

}  // namespace rat
