#include <algorithm>

#include "experiments/data/tokenizers.h"
#include "experiments/inspect_impl.h"

namespace rat {

void InspectSession::Impl::loop() {
  devices = rat::devices();  // asking a GPU takes its time, so not where the session is made
  std::erase_if(devices, [](const Device& one) { return !one.problem.empty(); });
  publish_status();
  for (;;) {
    {
      std::unique_lock lock(mutex);
      wake.wait(lock, [&] {
        return wishes.quit || wishes.source || (wishes.trace && model) || wishes.prompt || wishes.more > 0 ||
               wishes.stop_generation || wishes.sample || (wishes.layers && model) || remaining > 0;
      });
      if (wishes.quit) return;
    }
    try {
      turn();
    } catch (const std::exception& error) {
      if (std::exchange(remaining, 0) > 0) publish_generation();
      publish_status(fmt::format("This could not be computed ({}); try fewer tokens.", error.what()), true);
    }
  }
}

// One piece of work, the most urgent first.
void InspectSession::Impl::turn() {
  if (const auto source = take_source()) return load(*source);
  if (take_stop() || take_sample()) return publish_generation();
  if (auto layers = take_layers()) return change_layers(*std::move(layers));
  bool wants_trace = false;
  {
    const std::lock_guard lock(mutex);
    follow = wishes.follow;
    wants_trace = wishes.trace && model;
    if (wants_trace) {
      wishes.trace = false;
      request = wishes.request, probe_tokens = wishes.tokens, text = wishes.text;
      trace_stop.reset();
    }
  }
  if (wants_trace) return update_trace();
  if (take_prompt()) return;
  if (remaining > 0) generate_one();
}

// Whether tokens were being generated.
bool InspectSession::Impl::take_stop() {
  const std::lock_guard lock(mutex);
  if (!std::exchange(wishes.stop_generation, false)) return false;
  return std::exchange(remaining, 0) > 0;
}

std::optional<InspectSource> InspectSession::Impl::take_source() {
  const std::lock_guard lock(mutex);
  if (!wishes.source) return std::nullopt;
  load_stop.reset();
  wishes.trace = true;  // other weights, other values
  return std::exchange(wishes.source, std::nullopt);
}

std::optional<std::vector<LayerConfig>> InspectSession::Impl::take_layers() {
  const std::lock_guard lock(mutex);
  if (!model || !wishes.layers) return std::nullopt;
  return std::exchange(wishes.layers, std::nullopt);
}

void InspectSession::Impl::change_layers(std::vector<LayerConfig> layers) {
  if (layers == model_config.layers) layers.clear();
  if (const Status changed = model->set_layers(layers.empty() ? model_config.layers : layers); !changed)
    return publish_status(fmt::format("These layers cannot be used: {}.", changed.error().message), true);
  chosen_layers = std::move(layers);
  drop_generation();
  {
    const std::lock_guard lock(mutex);
    wishes.trace = true;  // a refused change leaves the trace and its own sentence alone
  }
  publish_status();
}

void InspectSession::Impl::drop_generation() {
  remaining = 0;
  if (!generation) return;
  generation.reset();  // its cache belongs to the old weights or layers
  publish_generation();
}

void InspectSession::Impl::load(const InspectSource& source) {
  const bool same_run = source.weights && source.weights->run_id == run_id;
  if (!same_run && (!source.run || source.run->id != run_id)) chosen_layers.clear();
  run_id = source.run ? source.run->id : source.weights->run_id;
  run_name = source.run ? source.run->name : source.weights->spec.name;
  checkpoint = source.run ? source.run->checkpoint : "";
  if (!same_run) publish_status("", false, true);
  drop_generation();
  if (!same_run && device != "cpu") model.reset(), device = "cpu";  // another device is a generation's wish
  const Status done = [&]() -> Status {
    if (source.run && checkpoint.empty())
      return fail(ErrorCode::not_found, "Run '{}' has no complete checkpoint yet, so there are no weights to look at.",
                  run_name);
    RunSpec spec;
    if (source.run) {
      RAT_ASSIGN(spec, parse_spec(source.run->spec_json));
    } else {
      spec = source.weights->spec;
    }
    RAT_TRY(load_weights_of(source, spec));
    open_data(spec);
    return ok();
  }();
  if (load_stop.requested()) return;  // a newer wish is waiting, or the end
  if (done) return publish_status();
  model.reset();
  run_id.clear(), run_name.clear(), checkpoint.clear();
  publish_status(done.error().message, true);
}

// A copy of the model, weights and layers, on another device takes its place; where that fails, it stays.
Status InspectSession::Impl::move_to(const std::string& wanted) {
  if (wanted == device) return ok();
  const auto copy = [&]() -> Result<std::unique_ptr<Model>> {
    RAT_ASSIGN(std::unique_ptr<Model> other, Model::create(model_config, 0, wanted));
    RAT_TRY(other->set_layers(model->config().layers));
    const auto from = std::as_const(*model).parameters();
    const auto to = other->parameters();
    for (std::size_t i = 0; i < to.size(); ++i) std::ranges::copy(from[i].value, to[i].value.begin());
    return other;
  };
  try {
    auto moved = copy();
    if (!moved) return fail(moved.error().code, "The model cannot be moved to {}: {}.", wanted, moved.error().message);
    model = *std::move(moved);
  } catch (const std::exception& error) {  // the device's memory is full, or it has failed
    return fail(ErrorCode::unsupported, "The model could not be moved to {} ({}).", wanted, error.what());
  }
  device = wanted;
  return ok();
}

Status InspectSession::Impl::load_weights_of(const InspectSource& source, const RunSpec& spec) {
  if (!(model_config == spec.model)) chosen_layers.clear();
  if (!model || !(model_config == spec.model)) {
    model.reset();  // before the new one: memory for one is enough
    RAT_ASSIGN(model, Model::create(spec.model, spec.train.seed, device));
    model_config = spec.model;
  }
  RAT_TRY(model->set_layers(chosen_layers.empty() ? model_config.layers : chosen_layers));
  if (load_stop.requested()) return fail(ErrorCode::cancelled, "Another run was asked for.");
  if (source.run) {
    RAT_ASSIGN(const CheckpointMeta meta, read_checkpoint_meta(checkpoint));
    RAT_TRY(load_weights(checkpoint, *model));
    step = meta.step;
    return ok();
  }
  const auto parameters = model->parameters();
  if (parameters.size() != source.weights->values.size())
    return fail(ErrorCode::shape_mismatch, "The live weights have {} tensors, the model has {}.",
                source.weights->values.size(), parameters.size());
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].value.size() != source.weights->values[i].size())
      return fail(ErrorCode::shape_mismatch, "The live weights of '{}' have another size than the model's.",
                  parameters[i].name);
    std::ranges::copy(source.weights->values[i], parameters[i].value.begin());
  }
  step = source.weights->step;
  return ok();
}

// Without the data a run can still be looked at with typed text, so a failure here is kept for when it matters.
void InspectSession::Impl::open_data(const RunSpec& spec) {
  auto of_run = tokenizer_of(spec.data, spec.model);
  tokenizer = of_run ? *std::move(of_run) : nullptr;
  tokenizer_problem = of_run ? "" : of_run.error().message;
  RunSpec relevant = spec;
  relevant.name.clear();
  relevant.train = {};
  relevant.train.seq_len = spec.train.seq_len, relevant.train.seed = spec.train.seed;
  const std::string key = to_json(relevant);
  if (data && data_key == key) return;
  data.reset();
  data_problem.clear();
  if (spec.data.path == "-") {  // the window's own standard input has nothing to do with it
    data_problem = "it was read from standard input, which is not kept";
    return;
  }
  auto opened = DataSource::open(spec.data, spec.model, spec.train.seq_len, spec.train.seed, &load_stop);
  if (!opened) {
    data_problem = opened.error().message;
    return;
  }
  data = *std::move(opened);
  data_key = key;
}

Result<std::vector<int32_t>> InspectSession::Impl::typed_tokens(const std::string& typed) const {
  if (!tokenizer_problem.empty())
    return fail(ErrorCode::not_found, "Text cannot be encoded for this run: {}", tokenizer_problem);
  return tokens_from_text(typed, tokenizer.get(), model_config.vocab);
}

Result<std::vector<int32_t>> InspectSession::Impl::trace_tokens(std::string& source) {
  if (follow && generation) {
    source = "generation";
    return generation->tokens(shown_sample);
  }
  if (!text.empty()) {
    RAT_ASSIGN(std::vector<int32_t> tokens, typed_tokens(text));
    source = "prompt";
    if (const auto limit = static_cast<std::size_t>(std::max<int64_t>(1, probe_tokens)); tokens.size() > limit) {
      source = fmt::format("prompt, first {} of {} tokens", limit, tokens.size());
      tokens.resize(limit);
    }
    return tokens;
  }
  if (!data)
    return fail(ErrorCode::not_found, "The run's validation text is not available ({}); type a text instead.",
                data_problem);
  source = tokenizer ? "validation text" : "validation tokens";
  return data->probe_tokens(std::max<int64_t>(1, probe_tokens));
}

Result<TraceSnapshot> InspectSession::Impl::compute_trace() {
  std::string source;
  RAT_ASSIGN(const std::vector<int32_t> tokens, trace_tokens(source));
  if (tokens.empty()) return fail(ErrorCode::invalid_argument, "There are no tokens to look at; type a text.");
  RAT_TRY(model->set_dtype(follow && generation ? generation->dtype() : kernels::Dtype::f32));
  RAT_ASSIGN(TraceSnapshot snapshot, model->trace(tokens, request, {&trace_stop, nullptr}));
  snapshot.serial = next_trace_serial();
  snapshot.run_id = run_id;
  snapshot.step = step;
  snapshot.byte_tokens = tokenizer && tokenizer->is_bytes();
  snapshot.tokenizer = tokenizer;
  snapshot.source = source;
  return snapshot;
}

void InspectSession::Impl::update_trace() {
  if (request.items.empty()) return;
  auto snapshot = compute_trace();
  if (snapshot) {
    trace.publish(std::make_shared<const TraceSnapshot>(*std::move(snapshot)));
    publish_status();
  } else if (snapshot.error().code == ErrorCode::cancelled) {
    // Whatever cancelled it wants other values, or (a stopped generation) the same ones later.
    const std::lock_guard lock(mutex);
    wishes.trace = true;
  } else {
    publish_status(snapshot.error().message, true);
  }
}

void InspectSession::Impl::publish_status(const std::string& message, bool is_error, bool busy) {
  InspectStatus next{run_id, run_name, step, checkpoint, busy, message, is_error, {}, {}, {}, devices};
  if (model) {
    next.trained_layers = model_config.layers;
    next.layers = model->config().layers;
    next.layer_note = layer_change_note(next.trained_layers, next.layers);
  }
  status.publish(std::make_shared<const InspectStatus>(std::move(next)));
}

InspectSession::InspectSession() : impl_(std::make_unique<Impl>()) {}
InspectSession::~InspectSession() = default;

void InspectSession::open_run(const RunRow& run) {
  impl_->wish(
      [&](InspectWishes& wishes) {
        wishes.source = InspectSource{run, nullptr};
      },
      {&impl_->load_stop, &impl_->trace_stop, &impl_->generation_stop});
}

void InspectSession::use_weights(std::shared_ptr<const TrainingSession::LiveWeights> weights) {
  if (!weights) return;  // the live run had just ended
  impl_->wish(
      [&](InspectWishes& wishes) {
        wishes.source = InspectSource{std::nullopt, std::move(weights)};
      },
      {&impl_->load_stop, &impl_->trace_stop, &impl_->generation_stop});
}

void InspectSession::set_layers(std::vector<LayerConfig> layers) {
  impl_->wish([&](InspectWishes& wishes) { wishes.layers = std::move(layers); },
              {&impl_->trace_stop, &impl_->generation_stop});
}

void InspectSession::set_probes(const ProbeRequest& request, int64_t tokens, const std::string& text) {
  impl_->wish([&](InspectWishes& wishes) {
    if (wishes.request == request && wishes.tokens == tokens && wishes.text == text) return;
    wishes.request = request, wishes.tokens = tokens, wishes.text = text;
    wishes.trace = true;
    impl_->trace_stop.request();
  });
}

void InspectSession::generate(const std::string& prompt, int64_t count, const GenerationConfig& config) {
  impl_->wish(
      [&](InspectWishes& wishes) {
        wishes.prompt = InspectPrompt{prompt, std::max<int64_t>(0, count), config};
        wishes.more = 0;
        wishes.sample.reset();
        wishes.stop_generation = false;
      },
      {&impl_->generation_stop});
}

void InspectSession::generate_more(int64_t count) {
  impl_->wish([&](InspectWishes& wishes) { wishes.more += std::max<int64_t>(0, count); });
}

void InspectSession::show_sample(int64_t sample) {
  impl_->wish([&](InspectWishes& wishes) { wishes.sample = sample; });
}

void InspectSession::stop_generation() {
  impl_->wish(
      [&](InspectWishes& wishes) {
        wishes.stop_generation = true;
        wishes.more = 0;
        if (wishes.prompt) wishes.prompt->count = 0;
        if (wishes.follow) impl_->trace_stop.request();  // the trace of a token must not delay it
      },
      {&impl_->generation_stop});
}

void InspectSession::follow_generation(bool follow) {
  impl_->wish([&](InspectWishes& wishes) {
    if (wishes.follow == follow) return;
    wishes.follow = follow;
    wishes.trace = true;
  });
}

std::shared_ptr<const InspectStatus> InspectSession::status() const { return impl_->status.latest(); }
std::shared_ptr<const TraceSnapshot> InspectSession::trace() const { return impl_->trace.latest(); }
std::shared_ptr<const GenerationStatus> InspectSession::generation() const { return impl_->generation_status.latest(); }

}  // namespace rat
