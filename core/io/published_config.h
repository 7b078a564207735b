// The config that the published training code leaves in its checkpoints, as far as it says what tensor shapes cannot:
// kinds of layers, chunk lengths, windows, heads. Keys: configs/model of github.com/CLAIRE-Labo/RAT.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "core/config.h"
#include "kernels/base/status.h"

namespace rat {

struct PublishedConfig {
  std::vector<LayerConfig> layers;
  int64_t heads = 0, groups = 0;  // 0: not said
  double rope_base = 0;           // 0: not said
  bool no_positions = false;
};

// Refuses, in one sentence, what the config says about the model that no tensor shape shows and this program has not.
Status check_published_config(const std::map<std::string, std::string>& settings);
// `settings` by dotted path ("config.model.backbone.num_layers"); nothing when it is not such a config.
std::optional<PublishedConfig> published_config(const std::map<std::string, std::string>& settings);

}  // namespace rat
