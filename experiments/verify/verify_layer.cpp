// A layer case: y = mixer(x), the gradients of sum(y * grad_out), and the same y token by token.
#include <algorithm>
#include <set>

#include "core/single_layer.h"
#include "experiments/verify/golden_case.h"

namespace rat {
namespace {

struct LayerShape {
  int64_t batch, tokens, dim;
  std::vector<int64_t> x() const { return {batch, tokens, dim}; }
};

// Prefills the first `prefilled` tokens, decodes the rest, and compares all outputs; `at_once` sequences at a time.
Status compare_decoding(SingleLayer& layer, const LayerShape& shape, std::span<const float> x, std::span<const float> y,
                        int64_t prefilled, int64_t at_once, WorstError& worst) {
  const auto T = static_cast<std::size_t>(shape.tokens), dim = static_cast<std::size_t>(shape.dim);
  const auto sequences = static_cast<std::size_t>(at_once);
  std::vector<float> out(y.size()), x_part, y_part;
  for (std::size_t b = 0; b < static_cast<std::size_t>(shape.batch); b += sequences) {
    const auto state = layer.start_decoding(at_once);
    const std::size_t prompt = static_cast<std::size_t>(prefilled);
    for (std::size_t t = 0, count; t < T; t += count) {
      count = t == 0 && prompt > 0 ? prompt : 1;
      const auto place = [&](std::size_t s) { return ((b + s) * T + t) * dim; };
      x_part.clear();
      for (std::size_t s = 0; s < sequences; ++s) {
        const auto part = x.subspan(place(s), count * dim);
        x_part.insert(x_part.end(), part.begin(), part.end());
      }
      y_part.resize(x_part.size());
      if (t < prompt)
        RAT_TRY(layer.prefill(*state, x_part, prefilled, y_part));
      else
        RAT_TRY(layer.decode(*state, x_part, y_part));
      for (std::size_t s = 0; s < sequences; ++s)
        std::ranges::copy(std::span(y_part).subspan(s * count * dim, count * dim),
                          out.begin() + static_cast<std::ptrdiff_t>(place(s)));
    }
  }
  worst.add(relative_error(out, y),
            fmt::format("y after a prefill of {} tokens, {} sequences at a time", prefilled, at_once));
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
    for (const int64_t at_once : std::set{int64_t{1}, shape.batch})
      RAT_TRY(compare_decoding(*layer, shape, x, y, prefilled, at_once, decode));
  result.decode_err = decode.value();

  RAT_TRY(tensors.all_read());
  const bool output_ok = within(output, tolerance.output, "output", result.reason);
  const bool gradient_ok = within(gradient, tolerance.gradient, "gradient", result.reason);
  const bool decode_ok = within(decode, tolerance.decode, "decode", result.reason);
  result.pass = output_ok && gradient_ok && decode_ok;
  return ok();
}

}  // namespace rat
