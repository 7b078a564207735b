// A layer case: y = mixer(x), the gradients of sum(y * grad_out), and the same y token by token.
#include <algorithm>

#include "core/single_layer.h"
#include "experiments/verify/golden_case.h"

namespace rat {
namespace {

struct LayerShape {
  int64_t batch, tokens, dim;
  std::vector<int64_t> x() const { return {batch, tokens, dim}; }
};

// Prefills the first `prefilled` tokens of every sequence, decodes the rest, and compares all outputs.
Status compare_decoding(SingleLayer& layer, const LayerShape& shape, std::span<const float> x, std::span<const float> y,
                        int64_t prefilled, WorstError& worst) {
  const std::size_t row = static_cast<std::size_t>(shape.tokens * shape.dim);
  const std::size_t dim = static_cast<std::size_t>(shape.dim);
  std::vector<float> out(y.size());
  for (int64_t b = 0; b < shape.batch; ++b) {
    const auto x_b = x.subspan(static_cast<std::size_t>(b) * row, row);
    const auto out_b = std::span(out).subspan(static_cast<std::size_t>(b) * row, row);
    const auto state = layer.start_decoding();
    const std::size_t first = static_cast<std::size_t>(prefilled) * dim;
    if (prefilled > 0) RAT_TRY(layer.prefill(*state, x_b.first(first), prefilled, out_b.first(first)));
    for (std::size_t at = first; at < row; at += dim)
      RAT_TRY(layer.decode(*state, x_b.subspan(at, dim), out_b.subspan(at, dim)));
  }
  worst.add(relative_error(out, y), fmt::format("y after a prefill of {} tokens", prefilled));
  return ok();
}

Result<ModelConfig> read_config(Settings& settings, LayerShape& shape) {
  ModelConfig config;
  config.layers.clear();
  RAT_TRY(read_layer(settings, config));
  RAT_ASSIGN(shape.batch, settings.positive("batch"));
  RAT_ASSIGN(shape.tokens, settings.positive("seq_len"));
  RAT_ASSIGN(config.d_model, settings.positive("d_model"));
  RAT_ASSIGN(config.heads, settings.positive("heads"));
  SharedSettings shared;
  RAT_TRY(shared.read(settings));
  shared.apply(config);
  RAT_TRY(settings.all_read());
  shape.dim = config.d_model;
  return config;
}

}  // namespace

Status verify_layer(Settings& settings, CaseTensors& tensors, const VerifyOptions& options, CaseResult& result) {
  const VerifyTolerance tolerance = VerifyTolerance::of(options.dtype);
  LayerShape shape{};
  RAT_ASSIGN(const ModelConfig config, read_config(settings, shape));
  RAT_ASSIGN(const std::vector<float> x, tensors.floats("x", shape.x()));
  RAT_ASSIGN(const std::vector<float> y, tensors.floats("y", shape.x()));
  RAT_ASSIGN(const std::vector<float> grad_out, tensors.floats("grad_out", shape.x()));
  RAT_ASSIGN(const std::vector<float> grad_x, tensors.floats("grad_x", shape.x()));
  RAT_ASSIGN(const auto layer, SingleLayer::create(config, 1, options.device));
  RAT_ASSIGN(const kernels::Dtype dtype, kernels::parse_dtype(options.dtype));
  RAT_TRY(layer->set_dtype(dtype));
  RAT_TRY(tensors.load_parameters(layer->parameters()));
  for (Parameter& parameter : layer->parameters()) std::ranges::fill(parameter.grad, 0.0f);

  const PassOptions pass{.stop = options.stop, .times = nullptr};
  WorstError output, gradient, decode;
  std::vector<float> ours(x.size()), ours_grad_x(x.size());
  RAT_TRY(layer->forward(x, shape.batch, shape.tokens, ours, pass));
  output.add(relative_error(ours, y), "y");
  result.output_err = output.value();

  RAT_TRY(layer->backward(grad_out, ours_grad_x, pass));
  gradient.add(relative_error(ours_grad_x, grad_x), "grad_x");
  RAT_TRY(compare_gradients(tensors, layer->parameters(), gradient));
  result.grad_err = gradient.value();

  // From nothing, from the middle, and all but the last token: a chunk is entered at its start, inside and at its end.
  for (const int64_t prefilled : {int64_t{0}, shape.tokens / 2, shape.tokens - 1})
    RAT_TRY(compare_decoding(*layer, shape, x, y, prefilled, decode));
  result.decode_err = decode.value();

  RAT_TRY(tensors.all_read());
  const bool output_ok = within(output, tolerance.output, "output", result.reason);
  const bool gradient_ok = within(gradient, tolerance.gradient, "gradient", result.reason);
  const bool decode_ok = within(decode, tolerance.decode, "decode", result.reason);
  result.pass = output_ok && gradient_ok && decode_ok;
  return ok();
}

}  // namespace rat
