// Linear attention on tensor cores: features, values and the states between tiles rounded to bf16, sums in f32.
#pragma once

#include "kernels/linear_attention/linear_attention.h"

namespace rat::kernels::gpu::linear {

// Where LinearAttentionArgs::dtype is bf16, in heads of 64 and 128 channels. Everything else is multiplied in f32.
bool takes_tensor_cores(const LinearAttentionArgs& args);
// Some token sees another: tokens > shift. Rows before `shift` are not written.
Status attend_on_tensor_cores(const LinearAttentionArgs& args);
Status gradients_on_tensor_cores(const LinearAttentionBackwardArgs& args);

}  // namespace rat::kernels::gpu::linear
