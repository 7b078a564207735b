// Whole layers of attention over tokens in one call, where a backend fuses them: what mixers that are such layers
// share.
#pragma once

#include "core/mixer.h"
#include "kernels/attention_layer/attention_layer.h"

namespace rat {

// With the memory for what backward needs, in pass.saved.
kernels::AttentionLayerArgs fused_attention_args(const kernels::AttentionLayerShape& shape, const MixerPass& pass,
                                                 const LayerWeights& layer, const float* x, float* y);
Status fused_attention_forward(const kernels::AttentionLayerShape& shape, const MixerPass& pass,
                               const LayerWeights& layer, const float* x, float* y);
// `grad`: of y, then of x, as StreamGradient::values are.
Status fused_attention_backward(const kernels::AttentionLayerShape& shape, const MixerPass& pass,
                                const LayerWeights& layer, const float* x, float* grad);

}  // namespace rat
