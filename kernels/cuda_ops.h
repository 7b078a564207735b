// The kernels of the cuda backend, as kernels/cuda_backend.cpp lists them. Each is documented by its op's own header;
// shapes are checked. They are launched on the calling thread's own stream and return before they have run.
#pragma once

#include "kernels/backend.h"

namespace rat::kernels::gpu {

void* allocate(std::size_t bytes);
void release(void* data);
Status finish();
int mark();
double ms_between(int begin, int end);
void forget_marks();
void enter(const char* op);
void leave();
Status begin_recording();
Result<void*> end_recording();
Status replay(void* recording);
void forget_recording(void* recording);
uint64_t memory_changes();
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
std::size_t peak_bytes(bool reset);
bool fuses_rat_layer(const RatLayerShape& shape);
std::size_t rat_layer_saved(const RatLayerShape& shape);
Status rat_layer(const RatLayerArgs& args);
Status rat_layer_backward(const RatLayerBackwardArgs& args);
bool fuses_attention_layer(const AttentionLayerShape& shape);
std::size_t attention_layer_saved(const AttentionLayerShape& shape);
Status attention_layer(const AttentionLayerArgs& args);
Status attention_layer_backward(const AttentionLayerBackwardArgs& args);
bool fuses_rnn_layer(const RnnLayerShape& shape);
std::size_t rnn_layer_saved(const RnnLayerShape& shape);
Status rnn_layer(const RnnLayerArgs& args);
Status rnn_layer_backward(const RnnLayerBackwardArgs& args);
bool fuses_rattention_layer(const RattentionLayerShape& shape);
std::size_t rattention_layer_saved(const RattentionLayerShape& shape);
Status rattention_layer(const RattentionLayerArgs& args);
Status rattention_layer_backward(const RattentionLayerBackwardArgs& args);
std::size_t layer_step_workspace(const LayerStepShape& shape, int64_t capacity);
Status layer_step(const LayerStepArgs& args);
bool fuses_feed_forward(const FeedForwardShape& shape);
std::size_t feed_forward_saved(const FeedForwardShape& shape);
Status feed_forward(const FeedForwardArgs& args);
Status feed_forward_backward(const FeedForwardBackwardArgs& args);
bool fuses_loss_head(const LossHeadShape& shape);
Status loss_head(const LossHeadArgs& args);

}  // namespace rat::kernels::gpu
