#include "core/io/weight_import.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "core/io/published_config.h"
#include "core/mixer_list.h"
#include "core/weights.h"

namespace rat {
namespace {

constexpr std::string_view layer_prefix = "backbone.layers.";

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Builds the config from the shapes first, then from what was said.
class Planner {
 public:
  Planner(const WeightFile& file, const ImportChoices& choices) : file_(file), choices_(choices) {}

  Result<ImportPlan> plan() {
    plan_.findings = file_.notes();
    RAT_TRY(sizes());
    RAT_TRY(count_layers());
    if (!choices_.stated) RAT_TRY(read_published());
    RAT_TRY(layers());
    RAT_TRY(heads());
    positions();
    groups();
    RAT_TRY(validate(plan_.model));
    compare();
    return std::move(plan_);
  }

 private:
  template <class... Args>
  void found(fmt::format_string<Args...> format, Args&&... args) {
    plan_.findings.push_back(fmt::format(format, std::forward<Args>(args)...));
  }

  Result<std::vector<int64_t>> matrix(const std::string& name) const {
    const auto entry = file_.tensors().find(name);
    if (entry == file_.tensors().end())
      return fail(ErrorCode::invalid_argument, "The file has no tensor '{}', from which sizes are read", name);
    if (entry->second.info.shape.size() != 2)
      return fail(ErrorCode::invalid_argument, "Tensor '{}' is {}; a matrix was expected", name,
                  shape_text(entry->second.info.shape));
    return entry->second.info.shape;
  }

  Status sizes() {
    RAT_ASSIGN(const auto embedding, matrix("embedding.wte.weight"));
    plan_.model.vocab = embedding[0], plan_.model.d_model = embedding[1];
    RAT_ASSIGN(const auto hidden, matrix("backbone.layers.0.hidden_layer.fc1.weight"));
    if (embedding[1] < 1 || hidden[0] % embedding[1] != 0)
      return fail(ErrorCode::unsupported,
                  "The feed-forward layer has {} units, which is no multiple of D = {}; this program cannot hold it",
                  hidden[0], embedding[1]);
    plan_.model.ffn_mult = hidden[0] / embedding[1];
    found("from the shapes: V {}, D {}, feed-forward {} x D", embedding[0], embedding[1], plan_.model.ffn_mult);
    return ok();
  }

  Status count_layers() {
    std::set<int64_t> seen;
    for (const auto& [name, entry] : file_.tensors()) {
      int64_t index = -1;
      if (name.starts_with(layer_prefix))
        std::from_chars(name.data() + layer_prefix.size(), name.data() + name.size(), index);
      if (index >= 0) seen.insert(index);
    }
    layer_count_ = static_cast<int64_t>(seen.size());
    if (seen.empty() || *seen.rbegin() != layer_count_ - 1)
      return fail(ErrorCode::invalid_argument, "The file has tensors of {} layers, the last numbered {}; some are gone",
                  layer_count_, seen.empty() ? -1 : *seen.rbegin());
    return ok();
  }

  Status read_published() {
    const auto& settings = file_.settings();
    RAT_TRY(check_published_config(settings));
    published_ = published_config(settings);
    if (const auto tied = settings.find("config.task.tie_embedding"); tied != settings.end() && tied->second == "true")
      found("embedding and head are one tensor there (tie_embedding); here they are two that training lets part");
    return ok();
  }

  Status layers() {
    std::vector<LayerConfig>& layers = plan_.model.layers;
    if (!choices_.layers.empty()) {
      RAT_ASSIGN(const std::vector<LayerConfig> pattern, parse_layers(choices_.layers));
      const auto size = static_cast<int64_t>(pattern.size());
      if (layer_count_ % size != 0)
        return fail(ErrorCode::invalid_argument,
                    "--layers {} has {} layers, the file {}; name all or a part of them "
                    "that repeats",
                    choices_.layers, size, layer_count_);
      layers.clear();
      for (int64_t i = 0; i < layer_count_; ++i) layers.push_back(pattern[static_cast<std::size_t>(i % size)]);
      return ok();
    }
    if (choices_.stated) {
      layers = choices_.stated->layers;
      found("from the file's metadata: layers {}", format_layers(layers));
      return ok();
    }
    if (published_) {
      layers = published_->layers;
      found("from the config in the file: layers {}", format_layers(layers));
      return ok();
    }
    return layers_from_shapes();
  }

  // gate_bias and 3 D rows: rnn, which needs no more to be known. Everything else has a length the shapes do not show.
  Status layers_from_shapes() {
    int64_t rnn = 0, gated = 0;
    for (int64_t i = 0; i < layer_count_; ++i) {
      const std::string layer = fmt::format("{}{}.seq_layer.", layer_prefix, i);
      RAT_ASSIGN(const auto in_proj, matrix(layer + "in_proj.weight"));
      const bool gate = file_.tensors().contains(layer + "gate_bias");
      rnn += gate && in_proj[0] == 3 * plan_.model.d_model;
      gated += gate;
    }
    if (rnn == layer_count_) {
      plan_.model.layers.assign(static_cast<std::size_t>(rnn), LayerConfig{.kind = "rnn"});
      found("from the shapes: {} rnn layers", rnn);
      return ok();
    }
    return fail(ErrorCode::invalid_argument,
                "Which layers these are needs --layers: the shapes show {} layers, {} of them rnn, {} with a gate and "
                "{} without, but neither chunk lengths nor windows; for example --layers {}",
                layer_count_, rnn, gated - rnn, layer_count_ - gated,
                gated == 0              ? "attention"
                : gated == layer_count_ ? "rat:16"
                                        : "rat:16,swa:1024");
  }

  bool any_layer(bool MixerType::*uses) const {
    return std::ranges::any_of(plan_.model.layers, [&](const LayerConfig& layer) {
      const auto type = find_mixer_type(layer.kind);
      return type && (*type)->*uses;
    });
  }

  Status heads() {
    ModelConfig& model = plan_.model;
    if (choices_.heads > 0) {
      model.heads = choices_.heads;
    } else if (choices_.stated) {
      model.heads = choices_.stated->heads;
      found("from the file's metadata: {} heads", model.heads);
    } else if (published_ && published_->heads > 0) {
      model.heads = published_->heads;
      found("from the config in the file: {} heads", model.heads);
    } else if (!any_layer(&MixerType::uses_heads)) {
      model.heads = 1;
    } else {
      return fail(ErrorCode::invalid_argument,
                  "How many heads D = {} is split into needs --heads: no tensor shape shows it; the published models "
                  "have heads of 128 channels{}",
                  model.d_model, model.d_model % 128 == 0 ? fmt::format(", so --heads {}", model.d_model / 128) : "");
    }
    return ok();
  }

  void positions() {
    ModelConfig& model = plan_.model;
    if (choices_.stated) model.positions = choices_.stated->positions, model.rope_base = choices_.stated->rope_base;
    if (published_ && published_->no_positions) model.positions = Positions::none;
    if (published_ && published_->rope_base > 0) model.rope_base = published_->rope_base;
    if (choices_.positions) model.positions = *choices_.positions;
    if (choices_.rope_base > 0) model.rope_base = choices_.rope_base;
  }

  int64_t wrong_projections(const ModelConfig& model) const {
    if (!validate(model)) return layer_count_ + 1;
    int64_t wrong = 0;
    for (std::size_t i = 0; i < model.layers.size(); ++i) {
      const auto entry = file_.tensors().find(fmt::format("{}{}.seq_layer.in_proj.weight", layer_prefix, i));
      const std::vector<int64_t> wanted = sequence_layer_weights(model, model.layers[i]).front().shape;
      wrong += entry == file_.tensors().end() || entry->second.info.shape != wanted;
    }
    return wrong;
  }

  // Shared groups and key/value heads make the input projections narrower: the numbers with which all of them fit.
  void groups() {
    ModelConfig& model = plan_.model;
    if (choices_.stated) model.groups = choices_.stated->groups, model.kv_heads = choices_.stated->kv_heads;
    if (published_ && published_->groups > 0) model.groups = published_->groups;
    if (choices_.groups > 0) model.groups = choices_.groups;
    const bool shares = any_layer(&MixerType::uses_groups), shares_kv = any_layer(&MixerType::uses_kv_heads);
    if (model.heads % std::max<int64_t>(1, model.groups) != 0) model.groups = 1;
    if (wrong_projections(model) == 0) return;
    ModelConfig best = model;
    for (int64_t groups = 1; groups <= (shares && choices_.groups == 0 ? model.heads : 1); ++groups) {
      if (model.heads % groups != 0) continue;
      for (int64_t kv_heads = 0; kv_heads < (shares_kv ? model.heads : 1); ++kv_heads) {
        if (kv_heads > 0 && model.heads % kv_heads != 0) continue;
        ModelConfig candidate = model;
        if (shares && choices_.groups == 0) candidate.groups = groups;
        candidate.kv_heads = kv_heads;
        if (wrong_projections(candidate) < wrong_projections(best)) best = candidate;
      }
    }
    model = best;
    if (shares) found("from the shapes: {} query/key groups", model.groups);
    if (model.kv_heads > 0) found("from the shapes: {} key/value heads", model.kv_heads);
  }

  void compare() {
    using State = MappingRow::State;
    std::set<std::string> wanted;
    for (const WeightSpec& spec : model_weights(plan_.model)) {
      wanted.insert(spec.name);
      const auto entry = file_.tensors().find(spec.name);
      if (entry == file_.tensors().end()) {
        plan_.rows.push_back({State::missing, spec.name, "", {}, spec.shape, DType::f32});
        continue;
      }
      const TensorInfo& info = entry->second.info;
      plan_.rows.push_back({info.shape == spec.shape ? State::used : State::mis_shaped, spec.name,
                            entry->second.name_in_file, info.shape, spec.shape, info.dtype});
    }
    for (const auto& [name, entry] : file_.tensors())
      if (!wanted.contains(name))
        plan_.rows.push_back({State::extra, name, entry.name_in_file, entry.info.shape, {}, entry.info.dtype});
  }

  const WeightFile& file_;
  const ImportChoices& choices_;
  ImportPlan plan_;
  int64_t layer_count_ = 0;
  std::optional<PublishedConfig> published_;
};

}  // namespace

std::string_view mapping_state_name(MappingRow::State state) {
  switch (state) {
    case MappingRow::State::used:
      return "used";
    case MappingRow::State::missing:
      return "missing";
    case MappingRow::State::extra:
      return "extra";
    case MappingRow::State::mis_shaped:
      return "wrong shape";
  }
  return "";
}

int64_t ImportPlan::count(MappingRow::State state) const { return std::ranges::count(rows, state, &MappingRow::state); }

bool ImportPlan::fits(bool allow_extra) const {
  using State = MappingRow::State;
  return count(State::missing) == 0 && count(State::mis_shaped) == 0 && (allow_extra || count(State::extra) == 0);
}

Result<ImportPlan> plan_import(const WeightFile& file, const ImportChoices& choices) {
  return Planner(file, choices).plan();
}

Status load_import(const WeightFile& file, const ImportPlan& plan, Model& model) {
  RAT_CHECK(plan.fits(true) && model.config() == plan.model, "the plan fits and the model is the plan's");
  std::vector<std::vector<float>> loaded;  // all, before any is put in place
  for (const Parameter& parameter : model.parameters()) {
    RAT_ASSIGN(std::vector<float> values, file.read_floats(parameter.name));
    RAT_CHECK(values.size() == parameter.value.size(), "the plan compared the shapes");
    loaded.push_back(std::move(values));
  }
  for (std::size_t i = 0; i < loaded.size(); ++i) std::ranges::copy(loaded[i], model.parameters()[i].value.begin());
  return ok();
}

}  // namespace rat
