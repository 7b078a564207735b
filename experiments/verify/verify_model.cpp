// A model case: logits, loss and gradients of one batch, the same logits token by token, and a short training.
#include <algorithm>
#include <cmath>

#include "core/optimizer.h"
#include "experiments/verify/golden_case.h"

namespace rat {
namespace {

struct ModelCase {
  ModelConfig config;
  int64_t batch = 0, tokens = 0;
  std::optional<OptimizerConfig> optimizer;
};

Result<OptimizerConfig> read_optimizer(const nlohmann::json& object) {
  Settings settings(object, "optimizer settings");
  OptimizerConfig optimizer;
  RAT_ASSIGN(const std::string kind, settings.text("kind"));
  if (kind != "adamw") return fail(ErrorCode::unsupported, "optimizer settings have the unknown kind '{}'", kind);
  RAT_ASSIGN(optimizer.lr, settings.number("lr"));
  RAT_ASSIGN(optimizer.eps, settings.number("eps"));
  RAT_ASSIGN(optimizer.weight_decay, settings.number("weight_decay"));
  RAT_ASSIGN(optimizer.clip, settings.number("clip"));
  const nlohmann::json* betas = settings.find("betas");
  if (!betas || !betas->is_array() || betas->size() != 2 || !betas->at(0).is_number() || !betas->at(1).is_number())
    return fail(ErrorCode::corrupt_data, "optimizer settings lack two betas");
  optimizer.beta1 = betas->at(0).get<double>();
  optimizer.beta2 = betas->at(1).get<double>();
  RAT_TRY(settings.must_be_true("constant_lr"));
  RAT_TRY(settings.must_be_true("decay_all_parameters"));
  RAT_TRY(settings.all_read());
  return optimizer;
}

Result<ModelCase> read_case(Settings& settings) {
  ModelCase out;
  out.config.layers.clear();
  RAT_ASSIGN(out.batch, settings.positive("batch"));
  RAT_ASSIGN(out.tokens, settings.positive("seq_len"));
  RAT_ASSIGN(out.config.vocab, settings.positive("vocab"));
  RAT_ASSIGN(out.config.d_model, settings.positive("d_model"));
  RAT_ASSIGN(out.config.heads, settings.positive("heads"));
  SharedSettings shared;
  RAT_TRY(shared.read(settings));
  if (settings.has("pos")) {
    RAT_ASSIGN(out.config.positions, read_positions(settings));
  }
  const nlohmann::json* layers = settings.find("layers");
  if (!layers || !layers->is_array())
    return fail(ErrorCode::corrupt_data, "{} lack the list 'layers'", settings.where());
  for (const nlohmann::json& layer : *layers) {
    const std::string where = fmt::format("settings of layer {}", out.config.layers.size());
    if (!layer.is_object()) return fail(ErrorCode::corrupt_data, "{} are no object", where);
    Settings layer_settings(layer, where);
    RAT_TRY(read_layer(layer_settings, out.config));
    RAT_TRY(shared.read(layer_settings));
    RAT_TRY(layer_settings.all_read());
  }
  shared.apply(out.config);
  if (const nlohmann::json* optimizer = settings.find("optimizer")) {
    if (!optimizer->is_object()) return fail(ErrorCode::corrupt_data, "the optimizer settings are no object");
    RAT_ASSIGN(out.optimizer, read_optimizer(*optimizer));
  }
  RAT_TRY(settings.all_read());
  return out;
}

// `tokens` (B, T+1) to inputs (B, T) and the tokens that follow them.
Result<TokenBatch> batch_of(std::span<const int32_t> tokens, const ModelCase& one) {
  for (const int32_t token : tokens)
    if (token < 0 || token >= one.config.vocab)
      return fail(ErrorCode::corrupt_data, "the token {} is outside the vocabulary of {}", token, one.config.vocab);
  TokenBatch batch{.batch = one.batch, .tokens = one.tokens, .inputs = {}, .targets = {}};
  const std::size_t T = static_cast<std::size_t>(one.tokens);
  for (std::size_t row = 0; row < static_cast<std::size_t>(one.batch); ++row) {
    const auto sequence = tokens.subspan(row * (T + 1), T + 1);
    batch.inputs.insert(batch.inputs.end(), sequence.begin(), sequence.end() - 1);
    batch.targets.insert(batch.targets.end(), sequence.begin() + 1, sequence.end());
  }
  return batch;
}

// The logits after each token from `prefilled` on, for every sequence.
Status compare_decoding(Model& model, const TokenBatch& batch, std::span<const float> logits, int64_t prefilled,
                        const PassOptions& pass, WorstError& worst) {
  const std::size_t V = static_cast<std::size_t>(model.config().vocab), T = static_cast<std::size_t>(batch.tokens);
  std::vector<float> ours, expected;
  for (std::size_t row = 0; row < static_cast<std::size_t>(batch.batch); ++row) {
    const auto tokens = std::span(batch.inputs).subspan(row * T, T);
    const auto state = model.start_decoding();
    for (std::size_t t = prefilled > 0 ? static_cast<std::size_t>(prefilled) - 1 : 0; t < T; ++t) {
      const bool first = prefilled > 0 && t + 1 == static_cast<std::size_t>(prefilled);
      RAT_ASSIGN(const std::vector<float> one,
                 first ? model.prefill(*state, tokens.first(t + 1), pass) : model.decode(*state, tokens[t], pass));
      ours.insert(ours.end(), one.begin(), one.end());
      const auto reference = logits.subspan((row * T + t) * V, V);
      expected.insert(expected.end(), reference.begin(), reference.end());
    }
  }
  worst.add(relative_error(ours, expected), fmt::format("logits after a prefill of {} tokens", prefilled));
  return ok();
}

Status compare_training(Model& model, CaseTensors& tensors, const ModelCase& one, const PassOptions& pass,
                        WorstError& worst) {
  const std::vector<int64_t> shape = tensors.shape("train_tokens");
  if (shape.size() != 3)
    return fail(ErrorCode::shape_mismatch, "the tensor 'train_tokens' is missing or not [steps, B, T+1]");
  RAT_ASSIGN(const std::vector<int32_t> tokens, tensors.ints("train_tokens", {shape[0], one.batch, one.tokens + 1}));
  RAT_ASSIGN(const std::vector<float> losses, tensors.floats("train_loss", {shape[0]}));
  AdamW optimizer(model.parameters(), *one.optimizer, model.exec());
  const std::size_t per_step = static_cast<std::size_t>(one.batch * (one.tokens + 1));
  for (std::size_t step = 0; step < losses.size(); ++step) {
    RAT_ASSIGN(const TokenBatch batch, batch_of(std::span(tokens).subspan(step * per_step, per_step), one));
    RAT_TRY(model.zero_gradients());
    RAT_ASSIGN(const double loss, model.loss_and_gradients(batch, 1.0, pass));
    worst.add(std::abs(loss - static_cast<double>(losses[step])), fmt::format("the loss of step {}", step));
    RAT_ASSIGN(const AdamW::StepResult update, optimizer.step(model, one.optimizer->lr));
    if (update.skipped)
      return fail(ErrorCode::corrupt_data, "training step {} had a gradient that is not finite", step);
  }
  for (const Parameter& parameter : model.parameters()) {
    RAT_ASSIGN(const std::vector<float> expected, tensors.floats("trained/" + parameter.name, parameter.shape));
    worst.add(relative_error(parameter.value, expected), "trained/" + parameter.name);
  }
  return ok();
}

}  // namespace

Status verify_model(Settings& settings, CaseTensors& tensors, const VerifyOptions& options, CaseResult& result) {
  const VerifyTolerance tolerance = VerifyTolerance::of(options.dtype);
  RAT_ASSIGN(const ModelCase one, read_case(settings));
  const int64_t B = one.batch, T = one.tokens;
  RAT_ASSIGN(const std::vector<int32_t> tokens, tensors.ints("tokens", {B, T + 1}));
  RAT_ASSIGN(const std::vector<float> logits, tensors.floats("logits", {B, T, one.config.vocab}));
  RAT_ASSIGN(const std::vector<float> loss, tensors.floats("loss", {1}));
  RAT_ASSIGN(const TokenBatch batch, batch_of(tokens, one));
  RAT_ASSIGN(const auto model, Model::create(one.config, 1, options.device));
  RAT_ASSIGN(const kernels::Dtype dtype, kernels::parse_dtype(options.dtype));
  RAT_TRY(model->set_dtype(dtype));
  RAT_TRY(tensors.load_parameters(model->parameters()));

  const PassOptions pass{.stop = options.stop, .times = nullptr};
  WorstError output, gradient, decode, train;
  RAT_ASSIGN(const std::vector<float> ours, model->logits(batch.inputs, B, pass));
  output.add(relative_error(ours, logits), "logits");
  RAT_ASSIGN(const Model::Evaluation evaluation, model->evaluate(batch, pass));
  const float mean = static_cast<float>(evaluation.loss_sum / static_cast<double>(evaluation.targets));
  output.add(relative_error({&mean, 1}, loss), "the evaluated loss");
  RAT_TRY(model->zero_gradients());
  RAT_ASSIGN(const double train_loss, model->loss_and_gradients(batch, 1.0, pass));
  const float training = static_cast<float>(train_loss);
  output.add(relative_error({&training, 1}, loss), "the training loss");
  result.output_err = output.value();

  RAT_TRY(compare_gradients(tensors, model->parameters(), gradient));
  result.grad_err = gradient.value();
  for (const int64_t prefilled : {int64_t{0}, T / 2, T - 1})
    RAT_TRY(compare_decoding(*model, batch, logits, prefilled, pass, decode));
  result.decode_err = decode.value();
  if (one.optimizer) {
    RAT_TRY(compare_training(*model, tensors, one, pass, train));
    result.train_err = train.value();
  }
  RAT_TRY(tensors.all_read());

  const bool output_ok = within(output, tolerance.output, "output", result.reason);
  const bool gradient_ok = within(gradient, tolerance.gradient, "gradient", result.reason);
  const bool decode_ok = within(decode, tolerance.decode, "decode", result.reason);
  const bool train_ok = within(train, tolerance.train, "training", result.reason);
  result.pass = output_ok && gradient_ok && decode_ok && train_ok;
  return ok();
}

}  // namespace rat
