#include "core/model.h"

#include <algorithm>

#include "core/model_impl.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/embedding/embedding.h"
#include "kernels/loss_head/loss_head.h"
#include "kernels/matmul/matmul.h"
#include "kernels/rms_norm/rms_norm.h"

namespace rat {

using kernels::Input;
using kernels::Output;

Status stopped(const PassOptions& options) {
  if (options.stop && options.stop->requested()) return fail(ErrorCode::cancelled, "the pass was stopped");
  return ok();
}

Model::Impl::Impl(const ModelConfig& config_, uint64_t seed, const kernels::Backend& backend)
    : config(config_),
      exec{.backend = &backend},
      store(model_weights(config_), seed, backend),
      shared(backend),
      work(backend),
      rounded(backend),
      rounded_gradient{Buffer(backend)} {
  std::span<Parameter> rest = store.on_device();
  const auto take = [&](std::size_t count) {
    const auto taken = rest.first(count);
    rest = rest.subspan(count);
    return taken;
  };
  embedding = &take(1)[0];
  for (const LayerConfig& layer : config.layers) {
    const auto sequence = take(sequence_layer_weights(config, layer).size());
    const auto feed_forward = take(feed_forward_weights(config).size());
    blocks.push_back(
        {SequenceLayer(config, layer, sequence, backend), FeedForward(config, feed_forward), Activations(backend)});
  }
  norm = &take(1)[0];
  head = &take(1)[0];
}

MixerPass Model::Impl::pass_for(int64_t batch, int64_t tokens, Activations& saved, const PassOptions& options) {
  MixerPass pass;
  pass.batch = batch;
  pass.tokens = tokens;
  pass.saved = &saved;
  pass.work = &work;
  pass.times = options.times;
  if (options.times != nullptr) options.times->device = exec.backend->host ? nullptr : exec.backend;
  pass.exec = exec;
  pass.dtype = dtype;
  pass.cache_dtype = cache_dtype;
  return pass;
}

Result<MixerPass> Model::Impl::decode_pass(int64_t batch, const PassOptions& options) {
  MixerPass pass = pass_for(batch, 1, shared, options);
  RAT_TRY(store.prepare());
  if (dtype == kernels::Dtype::bf16) {
    RAT_TRY(rounded.ensure(store.values()));
    pass.rounded = &rounded;
  }
  RAT_ASSIGN(pass.fused_weights, fused_weights());
  return pass;
}

Status Model::Impl::check_tokens(std::span<const int32_t> tokens) const {
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= config.vocab)
      return fail(ErrorCode::invalid_argument, "token {} at index {} is outside the model's vocabulary of {}",
                  tokens[i], i, config.vocab);
  return ok();
}

Status Model::Impl::check_batch(const TokenBatch& batch) const {
  const auto cells = static_cast<std::size_t>(batch.batch * batch.tokens);
  if (batch.batch < 1 || batch.tokens < 1 || batch.inputs.size() != cells || batch.targets.size() != cells)
    return fail(ErrorCode::shape_mismatch, "a batch of {} x {} tokens has {} inputs and {} targets", batch.batch,
                batch.tokens, batch.inputs.size(), batch.targets.size());
  RAT_TRY(check_tokens(batch.inputs));
  for (std::size_t i = 0; i < cells; ++i)
    if (batch.targets[i] != ignore_target && (batch.targets[i] < 0 || batch.targets[i] >= config.vocab))
      return fail(ErrorCode::invalid_argument, "target {} at index {} is outside the model's vocabulary of {}",
                  batch.targets[i], i, config.vocab);
  return ok();
}

Status Model::Impl::embed(std::span<const int32_t> tokens, float* x, const PassOptions& options) {
  const OpTimer timer(options.times, Op::embedding);
  return kernels::embedding({.ids = tokens,
                             .table = Input(embedding->value.data(), config.vocab, config.d_model),
                             .out = Output(x, static_cast<int64_t>(tokens.size()), config.d_model)},
                            exec);
}

Status Model::Impl::logits_of(const float* stream, int64_t count, float* logits, const MixerPass& pass) {
  const int64_t D = config.d_model;
  const Output normed(work[work_normed].ensure(count * D), count, D);
  {
    const OpTimer timer(pass.times, Op::norm);
    RAT_TRY(kernels::rms_norm({.x = Input(stream, count, D), .weight = norm->value, .y = normed}, pass.exec));
  }
  const OpTimer timer(pass.times, Op::gemm);
  return kernels::matmul({.a = normed,
                          .b = Input(head->value.data(), config.vocab, D),
                          .c = Output(logits, count, config.vocab),
                          .transpose_b = true,
                          .dtype = pass.dtype,
                          .b_bf16 = pass.rounded ? pass.rounded->of(head->value) : nullptr},
                         pass.exec);
}

Result<std::vector<float>> Model::Impl::read_logits(const float* stream, int64_t count, const MixerPass& pass) {
  float* const logits = work[work_logits].ensure(count * config.vocab);
  RAT_TRY(logits_of(stream, count, logits, pass));
  return downloaded(logits, count);
}

Result<std::vector<float>> Model::Impl::downloaded(const float* logits, int64_t count) {
  std::vector<float> result(static_cast<std::size_t>(count * config.vocab));
  RAT_TRY(kernels::download({.rows = Input(logits, count, config.vocab), .host = result.data()}, exec));
  return result;
}

// About 16 MiB of logits at a time on the host, which its caches hold in part, and 1 GiB on a device, whatever the
// vocabulary.
int64_t Model::Impl::head_rows() const {
  const int64_t logits = int64_t{1} << (exec.backend->host ? 22 : 28);
  return std::max<int64_t>(64, logits / config.vocab);
}

Status Model::Impl::head_and_loss(const LossPass& loss, const float* stream, float* grad, Model::Evaluation& out) {
  const TokenBatch& batch = loss.batch;
  const int64_t D = config.d_model, V = config.vocab, rows = batch.batch * batch.tokens;
  const auto targets = std::count_if(batch.targets.begin(), batch.targets.end(), [](int32_t t) { return t >= 0; });
  if (grad && targets == 0)
    return fail(ErrorCode::invalid_argument, "no token of the batch has a target, so there is no loss to train on");
  const auto grad_scale = grad ? static_cast<float>(loss.scale / static_cast<double>(targets)) : 0.0f;
  kernels::CrossEntropySums sums;
  const int64_t block = std::min(rows, head_rows());
  const bool fused = loss.fused_weights != nullptr && kernels::fuses_loss_head({block, D, V}, exec);
  kernels::StreamGradient to_stream;
  if (fused && grad) to_stream = rounded_gradient.of({grad, rows, D});
  for (int64_t begin = 0; begin < rows; begin += block) {
    const int64_t count = std::min(block, rows - begin);
    RAT_TRY(stopped(loss.options));
    kernels::LossHeadArgs args{
        .shape = {count, D, V},
        .norm = norm->value,
        .head = fused ? loss.fused_weights->of(head->value) : nullptr,
        .x = Input(stream + begin * D, count, D),
        .targets = std::span(batch.targets).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count)),
        .sums = &sums,
        .grad_scale = grad_scale,
        .grad = {},
        .grad_norm = norm->grad,
        .grad_head = head->grad};
    if (grad) args.grad.values = Output(grad + begin * D, count, D);
    if (fused && grad) args.grad.rounded = to_stream.rounded + begin * D;
    const OpTimer timer(fused ? loss.options.times : nullptr, Op::cross_entropy);
    RAT_TRY(fused ? kernels::loss_head(args, exec) : loss_head_unfused(args, loss.options));
  }
  out = {sums.loss, sums.targets, sums.correct};
  return ok();
}

// What kernels/loss_head computes, op by op.
Status Model::Impl::loss_head_unfused(const kernels::LossHeadArgs& args, const PassOptions& options) {
  const auto& [count, D, V] = args.shape;
  const MixerPass pass = pass_for(1, count, shared, options);
  const Output logits(work[work_logits].ensure(count * V), count, V);
  RAT_TRY(logits_of(args.x.data, count, logits.data, pass));
  {
    const OpTimer timer(options.times, Op::cross_entropy);
    RAT_TRY(kernels::cross_entropy(
        {.logits = logits, .targets = args.targets, .grad_scale = args.grad_scale, .sums = args.sums}, exec));
  }
  if (args.grad_scale == 0) return ok();
  const Input normed(work[work_normed].data(), count, D);
  const Output to_normed(work[work_narrow].ensure(count * D), count, D);
  {
    const OpTimer timer(options.times, Op::gemm);
    RAT_TRY(kernels::matmul(
        {.a = logits, .b = Input(head->value.data(), V, D), .c = to_normed, .dtype = dtype}, exec));
    RAT_TRY(kernels::matmul({.a = logits,
                             .b = normed,
                             .c = Output(args.grad_head.data(), V, D),
                             .transpose_a = true,
                             .accumulate = true,
                             .dtype = dtype},
                            exec));
  }
  const OpTimer timer(options.times, Op::norm);
  return kernels::rms_norm_backward({.x = args.x,
                                     .weight = args.norm,
                                     .grad_y = to_normed,
                                     .grad_x = args.grad.values,
                                     .grad_weight = args.grad_norm},
                                    exec);
}

Result<const RoundedWeights*> Model::Impl::fused_weights() {
  if (dtype != kernels::Dtype::bf16 || exec.backend->feed_forward == nullptr) return nullptr;
  RAT_TRY(rounded.ensure(store.values()));
  return &rounded;
}

Model::Model() = default;
Model::~Model() = default;

Result<std::unique_ptr<Model>> Model::create(const ModelConfig& config, uint64_t seed, std::string_view device) {
  RAT_TRY(validate(config));
  RAT_ASSIGN(const kernels::Backend* const backend, kernels::find_backend(device));
  RAT_TRY(backend->supports(kernels::Dtype::f32));
  const int64_t count = weight_count(model_weights(config));
  if (count > int64_t{1} << 36)
    return fail(ErrorCode::invalid_argument, "the model would have {} parameters; the largest supported number is {}",
                count, int64_t{1} << 36);
  std::unique_ptr<Model> model(new Model);
  try {
    model->impl_ = std::make_unique<Impl>(config, seed, *backend);
  } catch (const kernels::OutOfMemory& problem) {
    return fail(ErrorCode::invalid_argument, "a model of {} parameters ({} bytes with gradients) does not fit: {}", count,
                count * 8, problem.what());
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::invalid_argument, "there is not enough memory for {} parameters ({} bytes with gradients)",
                count, count * 8);
  }
  return model;
}

const ModelConfig& Model::config() const { return impl_->config; }
const kernels::Exec& Model::exec() const { return impl_->exec; }
Result<std::span<const Parameter>> Model::parameters_to_update() {
  RAT_TRY(impl_->store.prepare());
  impl_->rounded.invalidate();
  impl_->store.device_writes_values();
  return std::span<const Parameter>(impl_->store.on_device());
}
std::span<Parameter> Model::parameters() {
  impl_->rounded.invalidate();
  return impl_->store.parameters();
}
std::span<const Parameter> Model::parameters() const { return std::as_const(impl_->store).parameters(); }
int64_t Model::parameter_count() const { return impl_->store.count(); }
Status Model::set_dtype(kernels::Dtype dtype) {
  RAT_TRY(impl_->exec.backend->supports(dtype));
  impl_->dtype = dtype;
  return ok();
}
kernels::Dtype Model::dtype() const { return impl_->dtype; }
void Model::set_cache_dtype(std::optional<kernels::CacheDtype> dtype) { impl_->cache_dtype = dtype; }
Status Model::zero_gradients() { return impl_->store.zero_gradients(impl_->exec); }

Status Model::Impl::train_forward(const TrainingPass& training) {
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    RAT_TRY(stopped(training.options));
    Block& block = blocks[i];
    const MixerPass pass = training.of(block);
    float* middle = block.saved[saved_middle].ensure(pass.rows() * config.d_model);
    RAT_TRY(block.sequence.forward(pass, input_of(i, pass.rows()), middle, true));
    RAT_TRY(stopped(training.options));
    RAT_TRY(block.feed_forward.forward(pass, middle, input_of(i + 1, pass.rows()), true));
  }
  return ok();
}

Status Model::Impl::train_backward(const TrainingPass& training, float* grad) {
  for (std::size_t i = blocks.size(); i-- > 0;) {
    RAT_TRY(stopped(training.options));
    Block& block = blocks[i];
    const MixerPass pass = training.of(block);
    RAT_TRY(block.feed_forward.backward(pass, block.saved[saved_middle].data(), grad));
    RAT_TRY(stopped(training.options));
    RAT_TRY(block.sequence.backward(pass, block.saved[saved_x].data(), grad, grad, true));
  }
  return ok();
}

// Asked of the last half that runs, and not of `rounded_gradient`: a replay leaves that as it was.
bool Model::Impl::leaves_bf16(const TrainingPass& training) {
  return exec.backend->hands_on_bf16 && blocks.front().sequence.fuses(training.of(blocks.front()));
}

Result<double> Model::loss_and_gradients(const TokenBatch& batch, double scale, const PassOptions& options) {
  Impl& m = *impl_;
  RAT_TRY(m.check_batch(batch));
  m.rounded.invalidate();
  RAT_TRY(m.store.prepare());
  m.store.device_writes_gradients();
  Impl::TrainingPass training{m.pass_for(batch.batch, batch.tokens, m.shared, options), options};
  RAT_ASSIGN(training.pass.fused_weights, m.fused_weights());
  training.pass.rounded_gradient = &m.rounded_gradient;
  const int64_t rows = batch.batch * batch.tokens;
  // The two ways through the blocks are the same work for every batch of this shape; timed op by op, they are started op
  // by op.
  const kernels::RepeatedWork::Key key{batch.batch, batch.tokens, static_cast<int64_t>(m.dtype),
                                       m.settings};
  const auto through_blocks = [&](kernels::RepeatedWork& repeated, const auto& work) {
    return options.times == nullptr ? repeated.run(key, m.exec, work) : work();
  };
  RAT_TRY(m.embed(batch.inputs, m.input_of(0, rows), options));
  RAT_TRY(through_blocks(m.forward_work, [&] { return m.train_forward(training); }));
  Evaluation sums;
  float* const grad = m.work[work_step].ensure(rows * m.config.d_model);
  m.rounded_gradient.current = false;
  RAT_TRY(m.head_and_loss({batch, scale, training.pass.fused_weights, options}, m.input_of(m.blocks.size(), rows), grad,
                          sums));
  RAT_TRY(through_blocks(m.backward_work, [&] { return m.train_backward(training, grad); }));
  const OpTimer timer(options.times, Op::embedding);
  RAT_TRY(
      kernels::embedding_backward({.ids = batch.inputs,
                                   .grad_out = Input(grad, rows, m.config.d_model),
                                   .grad_table = Output(m.embedding->grad.data(), m.config.vocab, m.config.d_model),
                                   .grad_out_bf16 = m.leaves_bf16(training) ? m.rounded_gradient.data() : nullptr},
                                  m.exec));
  return sums.loss_sum / static_cast<double>(sums.targets);
}

Result<Model::Evaluation> Model::evaluate(const TokenBatch& batch, const PassOptions& options) {
  RAT_TRY(impl_->check_batch(batch));
  const auto nothing = [](std::size_t, const auto&) { return ok(); };
  RAT_TRY(impl_->store.prepare());
  RAT_ASSIGN(const RoundedWeights* const fused, impl_->fused_weights());
  RAT_ASSIGN(const float* stream, impl_->run_blocks(batch.inputs, batch.batch, options, nothing, nothing, fused));
  Evaluation sums;
  RAT_TRY(impl_->head_and_loss({batch, 0.0, fused, options}, stream, nullptr, sums));
  return sums;
}

Result<std::vector<float>> Model::logits(std::span<const int32_t> tokens, int64_t batch, const PassOptions& options) {
  if (batch < 1 || tokens.empty() || static_cast<int64_t>(tokens.size()) % batch != 0)
    return fail(ErrorCode::shape_mismatch, "{} tokens are not {} sequences of one length", tokens.size(), batch);
  RAT_TRY(impl_->check_tokens(tokens));
  const auto nothing = [](std::size_t, const auto&) { return ok(); };
  RAT_ASSIGN(const float* stream, impl_->run_blocks(tokens, batch, options, nothing, nothing));
  const auto rows = static_cast<int64_t>(tokens.size());
  return impl_->read_logits(stream, rows, impl_->pass_for(batch, rows / batch, impl_->shared, options));
}

}  // namespace rat
