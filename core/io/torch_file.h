// PyTorch checkpoints (.pt, .pth): zip files of raw storages and one pickle that says which tensor is what. Reading
// runs nothing (core/io/pickle_reader.h) and trusts no number in the file.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/io/safetensors.h"

namespace rat {

// The kinds of file weights may come in, told apart by their first bytes, whatever their name.
enum class WeightsFormat { safetensors, torch_zip, torch_legacy, unknown };
Result<WeightsFormat> weights_format(const std::filesystem::path& path);

class TorchFile {
 public:
  // A dict that holds tensors directly. TensorInfo::begin and end are not used.
  struct Dictionary {
    std::string path;  // "" is the whole file, "task" or "model.state_dict" a dict in it
    std::map<std::string, TensorInfo> tensors;
  };

  static Result<TorchFile> open(const std::filesystem::path& path);
  TorchFile(TorchFile&&) noexcept;
  TorchFile& operator=(TorchFile&&) noexcept;
  ~TorchFile();

  const std::vector<Dictionary>& dictionaries() const;  // in the order of the file
  // Numbers and texts by dotted path, e.g. "config.model.backbone.num_layers": what the training code left beside the
  // weights.
  const std::map<std::string, std::string>& settings() const;
  // Row-major. Converts F64 (rounded), F16 and BF16 to float; anything else is an error that names the tensor.
  Result<std::vector<float>> read_floats(const Dictionary& dictionary, const std::string& name) const;

 private:
  TorchFile();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A zip file that torch.load(weights_only=True) reads: the tensors as an OrderedDict; with a non-empty `key` a dict
// {key: tensors}. Written beside `path` and renamed over it.
Status write_torch_file(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                        const std::string& key = "");

}  // namespace rat
