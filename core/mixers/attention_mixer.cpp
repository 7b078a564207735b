// Causal softmax attention over tokens, whole (`attention`) or over a sliding window (`swa`): token t attends to
// t-W .. t. Columns of `projected`: value (D), query (D), key (D); queries and keys are rotated in place.
#include <algorithm>

#include "core/mixers/mixers.h"
#include "core/op_times.h"
#include "kernels/range_attention/range_attention.h"
#include "kernels/rope/rope.h"

namespace rat {
namespace {

using kernels::Input;
using kernels::Output;

enum Saved : std::size_t { log_sum = saved_mixer };

// Keys and values of the tokens still in sight: all, or a ring of W+1 in which token t is row t % (W+1).
struct AttentionState : MixerState {
  std::vector<float> k, v;  // (n, D)
  int64_t bytes() const override { return static_cast<int64_t>((k.size() + v.size()) * sizeof(float)); }
};

class AttentionMixer final : public Mixer {
 public:
  // `window` < 0: everything earlier.
  AttentionMixer(const ModelConfig& config, int64_t window)
      : D_(config.d_model),
        H_(config.heads),
        P_(config.head_size()),
        window_(window),
        rope_(config.positions == Positions::rope),
        table_(P_, config.rope_base) {}

  Status forward(const MixerPass& pass, const MixerWeights&, float* projected, float* mixed) override {
    const OpTimer timer(pass.times, Op::attention);
    const Output in(projected, pass.rows(), 3 * D_);
    RAT_TRY(rotate(pass, in.columns(D_, 2 * D_), 0, false));
    (*pass.saved)[log_sum].ensure(pass.batch * H_ * pass.tokens);
    return kernels::range_attention(attention_args(pass, projected, mixed), pass.exec);
  }

  Status backward(const MixerPass& pass, const MixerWeights&, const float* projected, const float* mixed,
                  const float* grad_mixed, float* grad_projected) override {
    const OpTimer timer(pass.times, Op::attention);
    const Output grad(grad_projected, pass.rows(), 3 * D_);
    std::fill_n(grad_projected, pass.rows() * 3 * D_, 0.0f);
    // Forward's args with `mixed` as the output that backward only reads.
    const auto forward = attention_args(pass, projected, const_cast<float*>(mixed));
    const auto sequences = [&](int64_t column) {
      return kernels::Sequences<float>{grad_projected + column, 3 * D_, pass.tokens * 3 * D_};
    };
    RAT_TRY(kernels::range_attention_backward({.forward = forward,
                                               .grad_out = Input(grad_mixed, pass.rows(), D_),
                                               .grad_q = grad.columns(D_, D_),
                                               .grad_k = sequences(2 * D_),
                                               .grad_v = sequences(0),
                                               .grad_own_q = {},
                                               .grad_own_k = {},
                                               .grad_own_v = {}},
                                              pass.exec));
    return rotate(pass, grad.columns(D_, 2 * D_), 0, true);
  }

  Input rows_of(const MixerPass&, Probe, const float*) const override { return {}; }
  int64_t attention_columns(int64_t tokens) const override { return tokens; }

  Status attention_of_head(const MixerPass& pass, const float* projected, int64_t head, float* weights) override {
    kernels::RangeAttentionArgs args = attention_args(pass, projected, nullptr);
    args.shape.heads = 1;
    args.q = args.q.columns(head * P_, P_);
    args.k.data += head * P_;
    args.v.data += head * P_;
    return kernels::attention_weights({.forward = args, .weights = {weights, pass.tokens, pass.tokens}}, pass.exec);
  }

  std::unique_ptr<MixerState> start() const override { return std::make_unique<AttentionState>(); }

  Status fill(const MixerPass& pass, const float* projected, MixerState& state) override {
    auto& cache = static_cast<AttentionState&>(state);
    const int64_t first = window_ < 0 ? 0 : std::max<int64_t>(0, pass.tokens - window_ - 1);
    for (int64_t t = first; t < pass.tokens; ++t) remember(cache, t, projected + t * 3 * D_);
    return ok();
  }

  Status step(const MixerPass& pass, const MixerWeights&, int64_t position, float* projected, MixerState& state,
              float* mixed) override {
    auto& cache = static_cast<AttentionState&>(state);
    MixerPass one = pass;
    one.batch = one.tokens = 1;
    RAT_TRY(rotate(one, Output(projected, 1, 3 * D_).columns(D_, 2 * D_), position, false));
    remember(cache, position, projected);
    const auto keys = static_cast<int64_t>(cache.k.size()) / D_;
    return kernels::attend_one({.heads = H_,
                                .q = Input(projected + D_, 1, D_),
                                .k = Input(cache.k.data(), keys, D_),
                                .v = Input(cache.v.data(), keys, D_),
                                .own_q = {},
                                .own_k = {},
                                .own_v = {},
                                .out = Output(mixed, 1, D_)},
                               pass.exec);
  }

 private:
  Status rotate(const MixerPass& pass, const Output& heads, int64_t first, bool inverse) {
    if (!rope_) return ok();
    table_.ensure(first + pass.tokens);
    return kernels::rope(
        {.x = heads, .y = heads, .table = &table_, .tokens = pass.tokens, .first = first, .inverse = inverse},
        pass.exec);
  }

  kernels::RangeAttentionArgs attention_args(const MixerPass& pass, const float* projected, float* out) const {
    const int64_t T = pass.tokens, rows = pass.rows();
    kernels::RangeAttentionArgs args;
    args.shape = {pass.batch, T, H_, P_, T, {.chunk_len = 1, .offset = 1, .window = window_}};
    args.q = Input(projected, rows, 3 * D_).columns(D_, D_);
    args.k = {projected + 2 * D_, 3 * D_, T * 3 * D_};
    args.v = {projected, 3 * D_, T * 3 * D_};
    args.out = Output(out, rows, D_);
    args.lse = Output((*pass.saved)[log_sum].data(), pass.batch * H_, T);
    return args;
  }

  // Row of `projected`: value, query, rotated key.
  void remember(AttentionState& cache, int64_t t, const float* row) const {
    const auto at = static_cast<std::size_t>((window_ < 0 ? t : t % (window_ + 1)) * D_),
               n = static_cast<std::size_t>(D_);
    if (cache.k.size() < at + n) {
      cache.k.resize(at + n);
      cache.v.resize(at + n);
    }
    std::copy_n(row + 2 * D_, D_, cache.k.data() + at);
    std::copy_n(row, D_, cache.v.data() + at);
  }

  int64_t D_, H_, P_, window_;
  bool rope_;
  kernels::RopeTable table_;
};

MixerCost cost_of(const ModelConfig& config, int64_t window, int64_t tokens) {
  const auto T = static_cast<double>(tokens);
  const int64_t most = window < 0 ? tokens : std::min(tokens, window + 1);  // keys of the last token
  const auto m = static_cast<double>(most);
  const double seen = (m * (m + 1) / 2 + (T - m) * m) / T;  // mean over tokens
  const double per_key = 4.0 * static_cast<double>(config.d_model);
  return {.flops_per_token = per_key * seen,
          .decode_flops = per_key * m,
          .cache_bytes = 4 * 2 * config.d_model * most,
          .saved_floats_per_token = config.heads};
}

MixerType token_attention() {
  MixerType type;
  type.probes = {Probe::attention, Probe::attention_overview, Probe::attention_entropy};
  type.projected_width = [](const ModelConfig& c) { return 3 * c.d_model; };
  type.extra_weights = [](const ModelConfig&, const LayerConfig&) { return std::vector<WeightSpec>{}; };
  return type;
}

}  // namespace

MixerType attention_mixer_type() {
  MixerType type = token_attention();
  type.name = "attention";
  type.description = "causal softmax attention over all earlier tokens";
  type.cost = [](const ModelConfig& c, const LayerConfig&, int64_t tokens) { return cost_of(c, -1, tokens); };
  type.create = [](const ModelConfig& c, const LayerConfig&) -> std::unique_ptr<Mixer> {
    return std::make_unique<AttentionMixer>(c, -1);
  };
  return type;
}

MixerType swa_mixer_type() {
  MixerType type = token_attention();
  type.name = "swa";
  type.description = "sliding-window attention: the token and the W tokens before it";
  type.uses_window = true;
  type.cost = [](const ModelConfig& c, const LayerConfig& layer, int64_t tokens) {
    return cost_of(c, layer.window, tokens);
  };
  type.create = [](const ModelConfig& c, const LayerConfig& layer) -> std::unique_ptr<Mixer> {
    return std::make_unique<AttentionMixer>(c, layer.window);
  };
  return type;
}

}  // namespace rat
