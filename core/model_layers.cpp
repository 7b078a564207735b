// Other settings of the layers on the same weights.
#include <algorithm>

#include "core/mixer_list.h"
#include "core/model_impl.h"

namespace rat {
namespace {

bool same_weights(const ModelConfig& config, const LayerConfig& a, const LayerConfig& b) {
  const auto type_a = find_mixer_type(a.kind), type_b = find_mixer_type(b.kind);
  if (!type_a || !type_b || (*type_a)->create != (*type_b)->create) return false;
  return std::ranges::equal(
      sequence_layer_weights(config, a), sequence_layer_weights(config, b),
      [](const WeightSpec& x, const WeightSpec& y) { return x.key == y.key && x.shape == y.shape; });
}

// What the change of one layer means; empty: nothing worth saying.
std::string note_of(const LayerConfig& trained, const LayerConfig& now) {
  if (trained.kind == "ratplus" && trained.pos == now.pos)
    return "the RAT+ pattern was chosen for inference, which its weights allow";
  if (trained.kind == now.kind && trained.pos == now.pos && trained.chunk == now.chunk)
    return "the window differs from that of training";
  return "off-distribution: the weights were trained with other settings, so the numbers only show what breaks";
}

}  // namespace

Status check_layer_change(const ModelConfig& config, std::span<const LayerConfig> layers) {
  if (layers.size() != config.layers.size())
    return fail(ErrorCode::invalid_argument, "the model has {} layers ({}) and {} were given ({}); give one for each",
                config.layers.size(), format_layers(config.layers), layers.size(),
                format_layers({layers.begin(), layers.end()}));
  for (std::size_t i = 0; i < layers.size(); ++i)
    if (!same_weights(config, config.layers[i], layers[i]))
      return fail(ErrorCode::invalid_argument,
                  "layer {} is {} and cannot become {}: it would need other weights; only the numbers and positions of "
                  "a layer may change, and attention may become swa",
                  i, format_layer(config.layers[i]), format_layer(layers[i]));
  ModelConfig changed = config;
  changed.layers.assign(layers.begin(), layers.end());
  return validate(changed);
}

std::string layer_change_note(const std::vector<LayerConfig>& trained, const std::vector<LayerConfig>& now) {
  std::vector<std::string> notes;
  for (std::size_t i = 0; i < std::min(trained.size(), now.size()); ++i) {
    if (trained[i] == now[i]) continue;
    const std::string note = note_of(trained[i], now[i]);
    if (std::ranges::find(notes, note) == notes.end()) notes.push_back(note);
  }
  if (notes.empty()) return "";
  return fmt::format("layers {} instead of {}: {}", format_layers(now), format_layers(trained),
                     fmt::join(notes, "; "));
}

// Settings that come again have the number that they had.
int64_t Model::Impl::number_of_settings() {
  auto known = std::ranges::find(known_settings, config.layers);
  if (known == known_settings.end()) known = known_settings.insert(known, config.layers);
  return known - known_settings.begin();
}

Status Model::set_layers(std::span<const LayerConfig> layers) {
  Impl& m = *impl_;
  if (std::ranges::equal(layers, m.config.layers)) return ok();
  RAT_TRY(check_layer_change(m.config, layers));
  if (m.known_settings.empty()) m.known_settings.push_back(m.config.layers);
  m.config.layers.assign(layers.begin(), layers.end());
  for (std::size_t i = 0; i < m.blocks.size(); ++i) m.blocks[i].sequence.set_layer(m.config, layers[i]);
  ++m.layers_version;
  m.settings = m.number_of_settings();
  return ok();
}

}  // namespace rat
