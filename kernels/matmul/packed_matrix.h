// A right-hand operand of CPU matrix products, laid out once for several products with it. Memory is kept and reused.
#pragma once

#include "kernels/base/dtype.h"
#include "kernels/base/rows.h"
#include "kernels/base/scratch.h"

namespace rat::kernels {

class PackedMatrix {
 public:
  // Lays out op(b), which is (k, n): b itself, or its transpose. In parallel, unless inside a block of parallel_for.
  Status pack(const Input& b, bool transpose, Dtype dtype);

  const std::byte* panel(int64_t column) const;  // `column` must begin a panel
  int64_t panel_cols() const { return panel_cols_; }
  int64_t k() const { return k_; }
  int64_t n() const { return n_; }
  Dtype dtype() const { return dtype_; }

 private:
  Scratch memory_;
  const std::byte* data_ = nullptr;
  int64_t k_ = 0, n_ = 0, panel_cols_ = 0, panel_bytes_ = 0;
  Dtype dtype_ = Dtype::f32;
};

}  // namespace rat::kernels
