// Tensor maps for the copy engine: where a tensor lies, and the box that one copy moves (rows of 128 bytes, swizzled).
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

// (sequence, token, column) rows of `columns` bf16; a box is `rows` tokens of 64 columns; tokens beyond T read as zero
// and are not written.
Status token_map(CUtensorMap& map, const __nv_bfloat16* data, int64_t columns, int64_t stride, const RatShape& shape, int rows);
// The same of float32 without gaps; a box is `rows` tokens of 32 columns.
Status token_sums_map(CUtensorMap& map, float* data, int64_t columns, const RatShape& shape, int rows);
// (sequence, head, row, column): `count` rows of 64 or 128 bf16 per head; rows from `count` on read as zero.
Status key_map(CUtensorMap& map, const KeyRows<const __nv_bfloat16>& keys, int64_t count, const RatShape& shape, int rows);

// (0, row, column) of a matrix without gaps: a box is `box_rows` rows of 64 columns; what lies outside reads as zero and is
// not written.
Status matrix_map(CUtensorMap& map, const __nv_bfloat16* data, int64_t rows, int64_t columns, int box_rows);

}  // namespace rat::kernels::cuda
