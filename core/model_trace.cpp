#include <algorithm>
#include <chrono>

#include "core/model_impl.h"
#include "core/trace/attention_summary.h"

namespace rat {
namespace {

// Copies what a request names out of one forward pass.
class Recorder {
 public:
  Recorder(const ProbeRequest& request, const ModelConfig& config, const kernels::Exec& exec, TraceSnapshot& out)
      : request_(request), config_(config), exec_(exec), one_head_(*exec.backend), out_(out) {}

  Status after_layer(int layer, SequenceLayer& sequence, const MixerPass& pass) {
    const OpTimer timer(pass.times, Op::probes);
    const float* projected = (*pass.saved)[saved_projected].data();
    for (const Probe probe : sequence.type().probes)
      if (request_.wants(probe, layer)) {
        const kernels::Input rows = sequence.mixer().rows_of(pass, probe, projected);
        if (rows.data != nullptr) RAT_TRY(add_rows(probe, layer, rows));
      }
    return record_attention(layer, sequence, pass, projected);
  }

  Status after_block(int layer, const float* stream, int64_t tokens) {
    if (!request_.wants(Probe::residual, layer)) return ok();
    return add_rows(Probe::residual, layer, {stream, tokens, config_.d_model});
  }

  Status add_rows(Probe probe, int layer, const kernels::Input& rows) {
    ProbeTensor tensor{probe, layer, {rows.rows, rows.cols}, {}};
    tensor.values.resize(static_cast<std::size_t>(rows.rows * rows.cols));
    RAT_TRY(kernels::download({.rows = rows, .host = tensor.values.data()}, exec_));
    out_.tensors.push_back(std::move(tensor));
    return ok();
  }

 private:
  // One head at a time, so that thumbnails do not need all weights at once.
  Status record_attention(int layer, SequenceLayer& sequence, const MixerPass& pass, const float* projected) {
    const int64_t T = pass.tokens, K = sequence.mixer().attention_columns(T), H = config_.heads;
    const bool whole = request_.wants(Probe::attention, layer),
               overview = request_.wants(Probe::attention_overview, layer);
    const bool entropy = request_.wants(Probe::attention_entropy, layer);
    if (K == 0 || !(whole || overview || entropy)) return ok();
    ProbeTensor all{Probe::attention, layer, {H, T, K}, {}};
    ProbeTensor small{
        Probe::attention_overview, layer, {H, std::min(T, overview_size), std::min(K, overview_size)}, {}};
    ProbeTensor mean{Probe::attention_entropy, layer, {H}, {}};
    std::vector<float> weights(static_cast<std::size_t>(T * K));
    for (int64_t h = 0; h < H; ++h) {
      float* const one_head = one_head_.ensure(T * K);
      RAT_TRY(sequence.mixer().attention_of_head(pass, projected, h, one_head));
      RAT_TRY(kernels::download({.rows = kernels::Input(one_head, T, K), .host = weights.data()}, exec_));
      if (whole) all.values.insert(all.values.end(), weights.begin(), weights.end());
      if (entropy) mean.values.push_back(mean_entropy(weights, T, K));
      if (!overview) continue;
      const std::vector<float> pooled = attention_overview(weights, T, K);
      small.values.insert(small.values.end(), pooled.begin(), pooled.end());
    }
    if (whole) out_.tensors.push_back(std::move(all));
    if (overview) out_.tensors.push_back(std::move(small));
    if (entropy) out_.tensors.push_back(std::move(mean));
    return ok();
  }

  const ProbeRequest& request_;
  const ModelConfig& config_;
  const kernels::Exec& exec_;
  Buffer one_head_;
  TraceSnapshot& out_;
};

Status check_request(const ProbeRequest& request, const ModelConfig& config) {
  for (const ProbeRequest::Item& item : request.items) {
    const auto layers = static_cast<int>(config.layers.size());
    if (item.layer < -1 || item.layer >= layers)
      return fail(ErrorCode::invalid_argument, "probe {} asks for layer {}, but the model has layers 0 to {}",
                  probe_name(item.probe), item.layer, layers - 1);
    if (item.layer == -1 || item.probe == Probe::logits) continue;
    const LayerConfig& layer = config.layers[static_cast<std::size_t>(item.layer)];
    const std::vector<Probe> has = probes_of(layer);
    if (std::find(has.begin(), has.end(), item.probe) == has.end())
      return fail(ErrorCode::invalid_argument, "layer {} ({}) has no probe {}", item.layer, format_layer(layer),
                  probe_name(item.probe));
  }
  return ok();
}

}  // namespace

Result<TraceSnapshot> Model::trace(std::span<const int32_t> tokens, const ProbeRequest& request,
                                   const PassOptions& options) {
  Impl& m = *impl_;
  if (tokens.empty()) return fail(ErrorCode::invalid_argument, "a trace needs at least one token");
  RAT_TRY(m.check_tokens(tokens));
  RAT_TRY(check_request(request, m.config));
  const auto begin = std::chrono::steady_clock::now();
  TraceSnapshot snapshot;
  snapshot.model = m.config;
  snapshot.tokens.assign(tokens.begin(), tokens.end());
  snapshot.dtype = kernels::dtype_name(m.dtype);
  snapshot.device = m.exec.backend->name;
  snapshot.kernel_path =
      fmt::format("probe pass, {} kernels, products {}", m.exec.backend->host ? "CPU" : m.exec.backend->name,
                  m.exec.backend->matmul_path(m.dtype));
  Recorder recorder(request, m.config, m.exec, snapshot);
  const auto T = static_cast<int64_t>(tokens.size());
  RAT_ASSIGN(const float* stream, m.run_blocks(
                                      tokens, 1, options,
                                      [&](std::size_t i, const MixerPass& pass) {
                                        return recorder.after_layer(static_cast<int>(i), m.blocks[i].sequence, pass);
                                      },
                                      [&](std::size_t i, const float* x) {
                                        return recorder.after_block(static_cast<int>(i), x, T);
                                      }));
  if (request.wants(Probe::logits, -1)) {
    RAT_ASSIGN(std::vector<float> logits, m.read_logits(stream, T, m.pass_for(1, T, m.shared, options)));
    snapshot.tensors.push_back({Probe::logits, -1, {T, m.config.vocab}, std::move(logits)});
  }
  snapshot.cost_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  return snapshot;
}

}  // namespace rat
