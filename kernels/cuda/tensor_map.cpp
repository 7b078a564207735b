#include "kernels/cuda/tensor_map.h"

#include <algorithm>

namespace rat::kernels::cuda {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// Asked of the driver at run time, so that nothing of it is linked and a machine without one can build and start.
Encode encoder() {
  static const Encode found = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult result{};
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &result) != cudaSuccess ||
        result != cudaDriverEntryPointSuccess)
      return Encode{nullptr};
    return reinterpret_cast<Encode>(entry);
  }();
  return found;
}

// Boxes of `rows` rows of 128 bytes.
Status encode(CUtensorMap& map, const void* data, int rank, const cuuint64_t* sizes, const cuuint64_t* strides, int rows,
              CUtensorMapDataType type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16) {
  const Encode function = encoder();
  if (function == nullptr) return refuse("tensor map: this driver has no cuTensorMapEncodeTiled; it needs CUDA 12.0 or newer");
  const cuuint32_t columns = type == CU_TENSOR_MAP_DATA_TYPE_FLOAT32 ? 32 : 64;
  const cuuint32_t box[4] = {columns, static_cast<cuuint32_t>(rows), 1, 1}, steps[4] = {1, 1, 1, 1};
  const CUresult result = function(&map, type, static_cast<cuuint32_t>(rank), const_cast<void*>(data),
                                   sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return {};
  return refuse("tensor map: refused (error %d) for %llu columns, row stride %llu bytes; memory and strides must be "
                "multiples of 16 bytes",
                static_cast<int>(result), static_cast<unsigned long long>(sizes[0]),
                static_cast<unsigned long long>(strides[0]));
}

}  // namespace

Status token_map(CUtensorMap& map, const __nv_bfloat16* data, int64_t columns, int64_t stride, const RatShape& s, int rows) {
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(s.tokens),
                               static_cast<cuuint64_t>(s.batch)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(stride) * 2, static_cast<cuuint64_t>(stride * s.tokens) * 2};
  return encode(map, data, 3, sizes, strides, rows);
}

Status token_sums_map(CUtensorMap& map, float* data, int64_t columns, const RatShape& s, int rows) {
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(s.tokens),
                               static_cast<cuuint64_t>(s.batch)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(columns) * 4, static_cast<cuuint64_t>(columns * s.tokens) * 4};
  return encode(map, data, 3, sizes, strides, rows, CU_TENSOR_MAP_DATA_TYPE_FLOAT32);
}

Status key_map(CUtensorMap& map, const KeyRows<const __nv_bfloat16>& keys, int64_t count, const RatShape& s, int rows) {
  const cuuint64_t sizes[4] = {static_cast<cuuint64_t>(s.head_size), static_cast<cuuint64_t>(std::max<int64_t>(1, count)),
                               static_cast<cuuint64_t>(s.heads), static_cast<cuuint64_t>(s.batch)};
  const cuuint64_t strides[3] = {static_cast<cuuint64_t>(keys.row) * 2, static_cast<cuuint64_t>(keys.head) * 2,
                                 static_cast<cuuint64_t>(keys.sequence) * 2};
  return encode(map, keys.data, 4, sizes, strides, rows);
}

Status matrix_map(CUtensorMap& map, const __nv_bfloat16* data, int64_t rows, int64_t columns, int box_rows) {
  return token_map(map, data, columns, columns, {.batch = 1, .tokens = rows}, box_rows);
}

}  // namespace rat::kernels::cuda
