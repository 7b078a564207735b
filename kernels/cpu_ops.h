// The CPU kernels, as kernels/cpu_backend.cpp lists them. Each is documented by its op's own header; shapes are
// checked.
#pragma once

#include "kernels/backend.h"

namespace rat::kernels::cpu {

void* allocate(std::size_t bytes);
void release(void* data);
Status finish();
Status upload(const UploadArgs& args);
Status download(const DownloadArgs& args);
Status zero(const ZeroArgs& args);
Status copy_rows(const CopyRowsArgs& args);
Status widen(const WidenArgs& args);
Status matmul(const MatmulArgs& args);
Status gated_scan(const GatedScanArgs& args);
Status gated_scan_backward(const GatedScanBackwardArgs& args);
Status range_attention(const RangeAttentionArgs& args);
Status range_attention_backward(const RangeAttentionBackwardArgs& args);
Status attention_weights(const AttentionWeightsArgs& args);
Status attend_one(const AttendOneArgs& args);
Status linear_attention(const LinearAttentionArgs& args);
Status linear_attention_backward(const LinearAttentionBackwardArgs& args);
Status linear_weights(const LinearWeightsArgs& args);
Status linear_absorb(const LinearAbsorbArgs& args);
Status linear_read(const LinearReadArgs& args);
Status head_norm(const HeadNormArgs& args);
Status head_norm_backward(const HeadNormBackwardArgs& args);
Status rms_norm(const RmsNormArgs& args);
Status rms_norm_backward(const RmsNormBackwardArgs& args);
Status rope(const RopeArgs& args);
Status gelu(const GeluArgs& args);
Status gelu_backward(const GeluBackwardArgs& args);
Status sigmoid(const SigmoidArgs& args);
Status output_gate(const OutputGateArgs& args);
Status output_gate_backward(const OutputGateBackwardArgs& args);
Status gate_gradient(const GateGradientArgs& args);
Status cross_entropy(const CrossEntropyArgs& args);
Status embedding(const EmbeddingArgs& args);
Status embedding_backward(const EmbeddingBackwardArgs& args);
Status adamw(const AdamWArgs& args);
Status round_weights(const RoundWeightsArgs& args);
bool fuses_feed_forward(const FeedForwardShape& shape);
std::size_t feed_forward_saved(const FeedForwardShape& shape);
Status feed_forward(const FeedForwardArgs& args);
Status feed_forward_backward(const FeedForwardBackwardArgs& args);

}  // namespace rat::kernels::cpu
