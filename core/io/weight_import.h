// Weights made elsewhere: which tensor of a file becomes which weight of a model, said in full before anything is
// loaded, and loaded all or nothing.
//
// Names are those of the published training code (github.com/CLAIRE-Labo/RAT): embedding.wte.weight,
// backbone.layers.<i>.seq_layer.{in_proj.weight, gate_bias, input_norm.weight, out_proj.weight},
// backbone.layers.<i>.hidden_layer.{fc1.weight, fc2.weight, ln.weight}, backbone.ln.weight, head.lm_head.weight. What
// torch.compile ("_orig_mod."), DistributedDataParallel ("module.") or a wrapper put before them is taken off.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/io/safetensors.h"
#include "core/model.h"

namespace rat {

// A safetensors file or one dict of a PyTorch checkpoint, told apart by content.
class WeightFile {
 public:
  static Result<WeightFile> open(const std::filesystem::path& path);
  WeightFile(WeightFile&&) noexcept;
  ~WeightFile();

  const std::string& format() const;  // "safetensors", "PyTorch"
  struct Entry {
    std::string name_in_file;
    TensorInfo info;
  };
  const std::map<std::string, Entry>& tensors() const;  // by published name
  // What the file says beside the tensors: safetensors metadata, or the numbers and texts of a PyTorch checkpoint.
  const std::map<std::string, std::string>& settings() const;
  const std::vector<std::string>& notes() const;  // which dict was used, what was taken off the names
  Result<std::vector<float>> read_floats(const std::string& published_name) const;

 private:
  WeightFile();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What a person says about the model. Empty or 0: take it from the file.
struct ImportChoices {
  std::string layers = {};  // a pattern; repeated when the file has a multiple of its layers
  int64_t heads = 0, groups = 0;
  std::optional<Positions> positions = {};
  double rope_base = 0;
  std::optional<ModelConfig> stated = {};  // what the file's own metadata says (an export of this program)
};

struct MappingRow {
  enum class State { used, missing, extra, mis_shaped };
  State state = State::used;
  std::string name;                    // published
  std::string name_in_file;            // empty: missing
  std::vector<int64_t> shape, wanted;  // in the file; in the model
  DType dtype = DType::f32;            // in the file
};
std::string_view mapping_state_name(MappingRow::State state);  // "used", "missing", "extra", "wrong shape"

struct ImportPlan {
  ModelConfig model;
  std::vector<std::string> findings;  // one sentence each: what was taken from where
  std::vector<MappingRow> rows;       // in the order of the model, then the extra ones

  int64_t count(MappingRow::State state) const;
  bool fits(bool allow_extra) const;
};

// Asks in one sentence for what neither the shapes nor the file's settings nor `choices` say.
Result<ImportPlan> plan_import(const WeightFile& file, const ImportChoices& choices);
// Puts every tensor of a plan that fits into `model`; on any error `model` is unchanged.
Status load_import(const WeightFile& file, const ImportPlan& plan, Model& model);

}  // namespace rat
