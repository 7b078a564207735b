// The gradient of the residual stream where the kernels of this folder read and leave it: in bf16.
#pragma once

#include <cuda_bf16.h>

#include "kernels/base/stream_gradient.h"
#include "kernels/cuda/blocks.h"
#include "kernels/cuda/convert.h"
#include "kernels/cuda/device.h"

namespace rat::kernels::gpu {

inline Result<__nv_bfloat16*> rounded_gradient(const StreamGradient& grad) {
  auto* const rounded = reinterpret_cast<__nv_bfloat16*>(grad.rounded);
  const int64_t count = grad.values.rows * grad.values.cols;
  if (!grad.is_rounded) RAT_TRY(answer(cuda::to_bf16(grad.values.data, rounded, count, stream())));
  return rounded;
}

}  // namespace rat::kernels::gpu
