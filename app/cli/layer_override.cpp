#include "app/cli/layer_override.h"

namespace rat::cli {

CLI::Option* add_layers_option(CLI::App& command, std::string& pattern) {
  return command
      .add_option("--layers", pattern, "Other layer settings on the run's weights, e.g. ratplus:64 or rat:8 (repeated "
                                       "to the model's depth)")
      ->type_name("PATTERN");
}

Status override_layers(const LoadedRun& loaded, const std::string& pattern) {
  if (pattern.empty()) return ok();
  RAT_ASSIGN(std::vector<LayerConfig> layers, parse_layers(pattern));
  const std::vector<LayerConfig> period = layers;
  const std::size_t depth = loaded.spec.model.layers.size();
  while (depth % period.size() == 0 && layers.size() < depth) layers.insert(layers.end(), period.begin(), period.end());
  RAT_TRY(loaded.model->set_layers(layers));
  const std::string note = layer_change_note(loaded.spec.model.layers, layers);
  print_note(note.empty() ? "--layers names the layers the run was trained with" : "--layers: " + note);
  return ok();
}

}  // namespace rat::cli
