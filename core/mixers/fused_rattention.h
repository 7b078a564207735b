// Whole layers of RAttention, and of linear attention alone, in one call, where a backend fuses them.
#pragma once

#include "core/mixer.h"
#include "kernels/rattention_layer/rattention_layer.h"

namespace rat {

// `weights`: of the norms, the window's first where there is one.
Status fused_rattention_forward(const kernels::RattentionLayerShape& shape, const MixerPass& pass, const LayerWeights& layer,
                                const MixerWeights& weights, const float* x, float* y);
// `grad`: of y, then of x, as StreamGradient::values are.
Status fused_rattention_backward(const kernels::RattentionLayerShape& shape, const MixerPass& pass, const LayerWeights& layer,
                                 const MixerWeights& weights, const float* x, float* grad);

}  // namespace rat
