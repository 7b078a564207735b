// A backend is one table of kernels. Callers use the op functions (kernels/<op>/<op>.h), which check shapes once and
// then run the entry of the backend named in Exec. There is no fallback from one backend to another.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "kernels/base/dtype.h"
#include "kernels/base/status.h"

namespace rat::kernels {

struct UploadArgs;
struct DownloadArgs;
struct ZeroArgs;
struct CopyRowsArgs;
struct WidenArgs;
struct MatmulArgs;
struct GatedScanArgs;
struct GatedScanBackwardArgs;
struct RangeAttentionArgs;
struct RangeAttentionBackwardArgs;
struct AttentionWeightsArgs;
struct AttendOneArgs;
struct LinearAttentionArgs;
struct LinearAttentionBackwardArgs;
struct LinearWeightsArgs;
struct LinearAbsorbArgs;
struct LinearReadArgs;
struct HeadNormArgs;
struct HeadNormBackwardArgs;
struct RmsNormArgs;
struct RmsNormBackwardArgs;
struct RopeArgs;
struct GeluArgs;
struct GeluBackwardArgs;
struct SigmoidArgs;
struct OutputGateArgs;
struct OutputGateBackwardArgs;
struct GateGradientArgs;
struct CrossEntropyArgs;
struct EmbeddingArgs;
struct EmbeddingBackwardArgs;
struct AdamWArgs;
struct RoundWeightsArgs;
struct RatLayerShape;
struct RatLayerArgs;
struct RatLayerBackwardArgs;
struct LayerStepShape;
struct LayerStepArgs;
struct AttentionLayerShape;
struct AttentionLayerArgs;
struct AttentionLayerBackwardArgs;
struct RattentionLayerShape;
struct RattentionLayerArgs;
struct RattentionLayerBackwardArgs;
struct FeedForwardShape;
struct RnnLayerShape;
struct RnnLayerArgs;
struct RnnLayerBackwardArgs;
struct FeedForwardArgs;
struct FeedForwardBackwardArgs;
struct LossHeadShape;
struct LossHeadArgs;

// A null entry: the backend does not have the op, and says so when asked.
struct Backend {
  std::string_view name;
  // How products of a dtype are computed: "bf16 AMX, f32 sums", "NVIDIA H200, cuBLASLt bf16, f32 sums".
  std::string (*matmul_path)(Dtype dtype) = nullptr;
  // Ok, or one sentence: the device is missing, or lacks this dtype.
  Status (*supports)(Dtype dtype) = nullptr;
  // The dtype of products whose errors softmax and gates would amplify, in a model of `dtype`.
  Dtype (*careful)(Dtype dtype) = nullptr;
  // Its memory is this process's own: no copies between it and the host; rows worth cutting into blocks that stay in a
  // core's cache; weights worth rounding in advance for decoding.
  bool host = false;
  void* (*allocate)(std::size_t bytes) = nullptr;  // throws OutOfMemory
  void (*release)(void* data) = nullptr;
  Status (*finish)() = nullptr;
  // The most bytes that were taken at a time since the last call with `reset`; null where the process's own peak says it.
  std::size_t (*peak_bytes)(bool reset) = nullptr;
  // Marks in this thread's stream of work, and the milliseconds between two of them (waits for the later one); null where
  // calls return when they are done. forget_marks: numbers start over.
  int (*mark)() = nullptr;
  double (*ms_between)(int begin, int end) = nullptr;
  void (*forget_marks)() = nullptr;
  // Around every op, for profilers; null where there is none to tell.
  void (*enter)(const char* op) = nullptr;
  void (*leave)() = nullptr;
  // What this thread starts between these two is kept rather than run, and replayed as a whole: see
  // kernels/recording/repeated_work.h. Null: there is nothing to gain. end_recording also ends one that failed.
  Status (*begin_recording)() = nullptr;
  Result<void*> (*end_recording)() = nullptr;
  Status (*replay)(void* recording) = nullptr;
  void (*forget_recording)(void* recording) = nullptr;
  // Goes up whenever any memory is taken or given back: addresses are the same while it stands still.
  uint64_t (*memory_changes)() = nullptr;
  Status (*upload)(const UploadArgs&) = nullptr;
  Status (*download)(const DownloadArgs&) = nullptr;
  Status (*zero)(const ZeroArgs&) = nullptr;
  Status (*copy_rows)(const CopyRowsArgs&) = nullptr;
  Status (*widen)(const WidenArgs&) = nullptr;
  Status (*matmul)(const MatmulArgs&) = nullptr;
  Status (*gated_scan)(const GatedScanArgs&) = nullptr;
  Status (*gated_scan_backward)(const GatedScanBackwardArgs&) = nullptr;
  Status (*range_attention)(const RangeAttentionArgs&) = nullptr;
  Status (*range_attention_backward)(const RangeAttentionBackwardArgs&) = nullptr;
  Status (*attention_weights)(const AttentionWeightsArgs&) = nullptr;
  Status (*attend_one)(const AttendOneArgs&) = nullptr;
  Status (*linear_attention)(const LinearAttentionArgs&) = nullptr;
  Status (*linear_attention_backward)(const LinearAttentionBackwardArgs&) = nullptr;
  Status (*linear_weights)(const LinearWeightsArgs&) = nullptr;
  Status (*linear_absorb)(const LinearAbsorbArgs&) = nullptr;
  Status (*linear_read)(const LinearReadArgs&) = nullptr;
  Status (*head_norm)(const HeadNormArgs&) = nullptr;
  Status (*head_norm_backward)(const HeadNormBackwardArgs&) = nullptr;
  Status (*rms_norm)(const RmsNormArgs&) = nullptr;
  Status (*rms_norm_backward)(const RmsNormBackwardArgs&) = nullptr;
  Status (*rope)(const RopeArgs&) = nullptr;
  Status (*gelu)(const GeluArgs&) = nullptr;
  Status (*gelu_backward)(const GeluBackwardArgs&) = nullptr;
  Status (*sigmoid)(const SigmoidArgs&) = nullptr;
  Status (*output_gate)(const OutputGateArgs&) = nullptr;
  Status (*output_gate_backward)(const OutputGateBackwardArgs&) = nullptr;
  Status (*gate_gradient)(const GateGradientArgs&) = nullptr;
  Status (*cross_entropy)(const CrossEntropyArgs&) = nullptr;
  Status (*embedding)(const EmbeddingArgs&) = nullptr;
  Status (*embedding_backward)(const EmbeddingBackwardArgs&) = nullptr;
  Status (*adamw)(const AdamWArgs&) = nullptr;
  Status (*round_weights)(const RoundWeightsArgs&) = nullptr;

  // Whole halves of a block, and the end of the model, in bf16; null: composed of the ops above.
  bool hands_on_bf16 = false;  // in backward they leave the gradient of the stream in bf16 alone
  bool (*fuses_rat_layer)(const RatLayerShape&) = nullptr;
  std::size_t (*rat_layer_saved)(const RatLayerShape&) = nullptr;
  Status (*rat_layer)(const RatLayerArgs&) = nullptr;
  Status (*rat_layer_backward)(const RatLayerBackwardArgs&) = nullptr;
  bool (*fuses_attention_layer)(const AttentionLayerShape&) = nullptr;
  std::size_t (*attention_layer_saved)(const AttentionLayerShape&) = nullptr;
  Status (*attention_layer)(const AttentionLayerArgs&) = nullptr;
  Status (*attention_layer_backward)(const AttentionLayerBackwardArgs&) = nullptr;
  bool (*fuses_rnn_layer)(const RnnLayerShape&) = nullptr;
  std::size_t (*rnn_layer_saved)(const RnnLayerShape&) = nullptr;
  Status (*rnn_layer)(const RnnLayerArgs&) = nullptr;
  Status (*rnn_layer_backward)(const RnnLayerBackwardArgs&) = nullptr;
  bool (*fuses_rattention_layer)(const RattentionLayerShape&) = nullptr;
  std::size_t (*rattention_layer_saved)(const RattentionLayerShape&) = nullptr;
  Status (*rattention_layer)(const RattentionLayerArgs&) = nullptr;
  Status (*rattention_layer_backward)(const RattentionLayerBackwardArgs&) = nullptr;
  // Of layers of RAT and of attention that are fused.
  std::size_t (*layer_step_workspace)(const LayerStepShape&, int64_t capacity) = nullptr;
  Status (*layer_step)(const LayerStepArgs&) = nullptr;
  bool (*fuses_feed_forward)(const FeedForwardShape&) = nullptr;
  std::size_t (*feed_forward_saved)(const FeedForwardShape&) = nullptr;
  Status (*feed_forward)(const FeedForwardArgs&) = nullptr;
  Status (*feed_forward_backward)(const FeedForwardBackwardArgs&) = nullptr;
  bool (*fuses_loss_head)(const LossHeadShape&) = nullptr;
  Status (*loss_head)(const LossHeadArgs&) = nullptr;
};

std::span<const Backend* const> backends();                  // THE list, in kernels/backend_list.cpp
Result<const Backend*> find_backend(std::string_view name);  // lists the known names on a miss
const Backend& cpu_backend();
const Backend& cuda_backend();  // only in builds with CUDA

// Tells a profiler which op is running.
class Told {
 public:
  Told(const Backend& backend, const char* op) : backend_(backend) {
    if (backend.enter != nullptr) backend.enter(op);
  }
  ~Told() {
    if (backend_.leave != nullptr) backend_.leave();
  }
  Told(const Told&) = delete;
  Told& operator=(const Told&) = delete;

 private:
  const Backend& backend_;
};

// Where an op runs.
struct Exec {
  const Backend* backend = &cpu_backend();

  template <class Args>
  [[nodiscard]] Status run(Status (*Backend::*op)(const Args&), const char* name, const Args& args) const {
    if (backend->*op == nullptr)
      return fail(ErrorCode::unsupported, "the {} backend has no {} kernel; choose another device", backend->name,
                  name);
    const Told told(*backend, name);
    return (backend->*op)(args);
  }
};

}  // namespace rat::kernels
