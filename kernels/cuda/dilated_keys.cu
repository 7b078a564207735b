#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/dilated_keys.h"

namespace rat::kernels::cuda {
namespace {

constexpr int kThreads = 256, kWide = 8;  // values of a thread

__global__ void __launch_bounds__(kThreads)
    gather_kernel(const __grid_constant__ DilatedKeysArgs a, int64_t keys, int64_t items) {
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= items) return;
  const RatShape& s = a.shape;
  const int64_t pieces = s.channels() / kWide, row = item / pieces, column = item % pieces * kWide;
  const int64_t h = column / s.head_size, b = row / keys;
  const KeyRows<const bf16>& from = blockIdx.y == 0 ? a.keys : a.values;
  bf16* const to = blockIdx.y == 0 ? a.to_keys : a.to_values;
  *reinterpret_cast<Pack<bf16, kWide>*>(to + row * s.channels() + column) =
      load<kWide>(from.at(b, h, s.key_token(row % keys)) + column % s.head_size);
}

}  // namespace

RatShape before_window(const RatShape& tokens, int64_t dilation, int64_t initial) {
  RatShape s = tokens;
  s.chunk_len = dilation;
  s.offset = -tokens.window;
  s.window = -1;
  s.initial = initial;
  return s;
}

Status gather_dilated_keys(const DilatedKeysArgs& a, cudaStream_t stream) {
  const RatShape& s = a.shape;
  RAT_CUDA_TRY(check_shape("gather_dilated_keys", s));
  bool aligned = s.head_size % kWide == 0;
  for (const KeyRows<const bf16>& rows : {a.keys, a.values})
    aligned = aligned && reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 && rows.row % kWide == 0 &&
              rows.head % kWide == 0 && rows.sequence % kWide == 0;
  if (!s.dilated() || !aligned)
    return refuse(
        "gather_dilated_keys: heads of %lld channels in rows %lld elements apart, %lld initial tokens; it takes "
        "dilated keys, heads of a multiple of 8 in rows that start at multiples of 16 bytes",
        static_cast<long long>(s.head_size), static_cast<long long>(a.keys.row), static_cast<long long>(s.initial));
  const int64_t keys = s.keys(), items = s.batch * keys * s.channels() / kWide;
  if (items == 0) return {};
  gather_kernel<<<dim3(static_cast<unsigned>((items + kThreads - 1) / kThreads), 2), kThreads, 0, stream>>>(a, keys,
                                                                                                            items);
  return launched("gather_dilated_keys");
}

}  // namespace rat::kernels::cuda
