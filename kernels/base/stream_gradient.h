// The gradient of the residual stream as fused halves of blocks hand it on: in f32, and the same rounded to bf16, which
// products read. A backend with `hands_on_bf16` (kernels/backend.h) leaves the f32 as it was and hands on bf16 alone, which
// saves a third of the bytes of each half's end.
#pragma once

#include <cstdint>

#include "kernels/base/rows.h"

namespace rat::kernels {

struct StreamGradient {
  Output values;                // (B*T, D) in, where not `is_rounded`: of y; out: of x, through the half and the residual
  uint16_t* rounded = nullptr;  // (B*T, D) the same in bf16: out, and in where `is_rounded`
  bool is_rounded = false;
};

// `bf16_alone`: the values are neither read nor written, so they need no memory.
inline Status check_gradient(const char* op, const StreamGradient& grad, int64_t rows, int64_t channels, bool bf16_alone) {
  RAT_CHECK(grad.rounded != nullptr, "a fused half leaves a rounded gradient");
  return bf16_alone ? expect_size(op, "grad", grad.values, rows, channels)
                    : expect_shape(op, "grad", grad.values, rows, channels);
}

}  // namespace rat::kernels
