// Weights and optimizer state on disk: two safetensors files that belong together, each written atomically; the
// weights file is written last, so a weights file always has its optimizer file.
//   <folder>/step-00000500.safetensors          published key names; metadata: format, spec (JSON), step, run_id
//   <folder>/step-00000500.optimizer.safetensors  m/<key>, v/<key>; metadata: step and whatever `extra` holds
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/model.h"
#include "core/optimizer.h"

namespace rat {

struct CheckpointMeta {
  int64_t step = 0;
  std::string run_id;
  std::string spec_json;
  std::map<std::string, std::string> extra;
};

// Returns the path of the weights file.
Result<std::filesystem::path> save_checkpoint(const std::filesystem::path& folder, const Model& model, AdamW& optimizer,
                                              const CheckpointMeta& meta);
// Loads all or nothing: a missing, extra or mis-shaped tensor is one error that lists them all.
Status load_weights(const std::filesystem::path& weights, Model& model);
Result<CheckpointMeta> load_checkpoint(const std::filesystem::path& weights, Model& model, AdamW& optimizer);
Result<CheckpointMeta> read_checkpoint_meta(const std::filesystem::path& weights);
// Complete checkpoints (both files present), oldest first. Removes stale temporary files.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& folder);

}  // namespace rat
