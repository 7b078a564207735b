// Sums over the rows of a tensor, added to a weight's gradient: rows are cut into parts by shape alone, every part is
// summed in order and the parts are joined in order, so that results never depend on timing.
#pragma once

#include <algorithm>

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/rms_norm.h"

namespace rat::kernels::gpu {

inline constexpr int column_threads = 128;

struct ColumnParts {
  int64_t rows_per_part = 0;
  int parts = 0;

  static ColumnParts of(int64_t rows) {
    const int64_t per_part = std::max<int64_t>(32, (rows + 511) / 512);
    return {per_part, static_cast<int>((rows + per_part - 1) / per_part)};
  }
  // One block for each part and 128 columns.
  dim3 grid(int64_t cols) const { return {static_cast<unsigned>(parts), blocks_for(cols, column_threads)}; }
};

// sums (cols) += the parts (count, cols); so few are joined in one pass, without a workspace.
inline Status join_parts(const float* parts, int count, int64_t cols, float* sums) {
  return answer(cuda::column_sums(parts, count, cols, nullptr, sums, stream(), true));
}

}  // namespace rat::kernels::gpu
