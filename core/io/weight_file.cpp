// WeightFile: one view of the two kinds of file.
#include <algorithm>

#include "core/io/torch_file.h"
#include "core/io/weight_import.h"

namespace rat {
namespace {

constexpr std::string_view anchor = "embedding.wte.weight";  // every model has it, so what stands before it is a prefix

// torch.compile puts this before the names of whatever it compiled, at any depth.
std::string without_compile_marks(std::string name) {
  constexpr std::string_view mark = "_orig_mod.";
  for (std::size_t at; (at = name.find(mark)) != std::string::npos;) name.erase(at, mark.size());
  return name;
}

// "task." of "task.embedding.wte.weight"; nothing when no name ends in the anchor.
std::optional<std::string> prefix_of(const std::map<std::string, TensorInfo>& tensors) {
  for (const auto& [raw, info] : tensors) {
    const std::string name = without_compile_marks(raw);
    if (name == anchor) return "";
    if (name.ends_with(fmt::format(".{}", anchor))) return name.substr(0, name.size() - anchor.size());
  }
  return std::nullopt;
}

}  // namespace

struct WeightFile::Impl {
  std::string path, format;
  std::map<std::string, Entry> tensors;
  std::map<std::string, std::string> settings;
  std::vector<std::string> notes;
  std::optional<SafetensorsFile> safetensors;
  std::optional<TorchFile> torch;
  std::size_t dictionary = 0;  // of torch

  Status take(const std::map<std::string, TensorInfo>& found, const std::string& prefix) {
    bool compiled = false;
    for (const auto& [raw, info] : found) {
      std::string name = without_compile_marks(raw);
      compiled = compiled || name != raw;
      if (name.starts_with(prefix)) name.erase(0, prefix.size());
      if (!tensors.emplace(name, Entry{raw, info}).second)
        return fail(ErrorCode::corrupt_data, "{}: two tensors become '{}' once '_orig_mod.' and '{}' are taken off",
                    path, name, prefix);
    }
    if (compiled) notes.push_back("'_orig_mod.' (torch.compile) was taken off the names");
    if (!prefix.empty()) notes.push_back(fmt::format("the prefix '{}' was taken off the names", prefix));
    return ok();
  }

  Status no_anchor(const std::string& where) const {
    return fail(ErrorCode::invalid_argument,
                "{} has no tensor named ...{} ({}); its names are not those of the published training code", path,
                anchor, where);
  }

  Status open_safetensors() {
    RAT_ASSIGN(safetensors, SafetensorsFile::open(path));
    format = "safetensors";
    settings = safetensors->metadata();
    const auto prefix = prefix_of(safetensors->tensors());
    if (!prefix) return no_anchor(fmt::format("{} tensors", safetensors->tensors().size()));
    return take(safetensors->tensors(), *prefix);
  }

  Status open_torch() {
    RAT_ASSIGN(torch, TorchFile::open(path));
    format = "PyTorch";
    settings = torch->settings();
    std::vector<std::string> others;
    std::optional<std::string> prefix;
    for (std::size_t i = 0; i < torch->dictionaries().size(); ++i) {
      const TorchFile::Dictionary& one = torch->dictionaries()[i];
      const auto found = prefix ? std::nullopt : prefix_of(one.tensors);
      if (found) {
        prefix = found;
        dictionary = i;
      } else {
        others.push_back(fmt::format("'{}' ({} tensors)", one.path, one.tensors.size()));
      }
    }
    const std::size_t shown = std::min<std::size_t>(others.size(), 4);
    std::string list =
        fmt::format("{}", fmt::join(others.begin(), others.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
    if (shown < others.size()) list += fmt::format(" and {} more", others.size() - shown);
    if (!prefix) return no_anchor("dicts: " + list);
    const std::string& used = torch->dictionaries()[dictionary].path;
    if (!used.empty()) notes.push_back(fmt::format("the tensors are those of the dict '{}'", used));
    if (!others.empty()) notes.push_back("dicts that were left alone: " + list);
    return take(torch->dictionaries()[dictionary].tensors, *prefix);
  }
};

WeightFile::WeightFile() : impl_(std::make_unique<Impl>()) {}
WeightFile::WeightFile(WeightFile&&) noexcept = default;
WeightFile::~WeightFile() = default;

Result<WeightFile> WeightFile::open(const std::filesystem::path& path) {
  RAT_ASSIGN(const WeightsFormat format, weights_format(path));
  WeightFile opened;
  opened.impl_->path = path.string();
  if (format == WeightsFormat::unknown)
    return fail(ErrorCode::corrupt_data, "{} is neither a safetensors file nor a PyTorch checkpoint (.pt, .pth)",
                path.string());
  RAT_TRY(format == WeightsFormat::safetensors ? opened.impl_->open_safetensors() : opened.impl_->open_torch());
  return opened;
}

const std::string& WeightFile::format() const { return impl_->format; }
const std::map<std::string, WeightFile::Entry>& WeightFile::tensors() const { return impl_->tensors; }
const std::map<std::string, std::string>& WeightFile::settings() const { return impl_->settings; }
const std::vector<std::string>& WeightFile::notes() const { return impl_->notes; }

Result<std::vector<float>> WeightFile::read_floats(const std::string& published_name) const {
  const auto found = impl_->tensors.find(published_name);
  if (found == impl_->tensors.end())
    return fail(ErrorCode::not_found, "{} has no tensor '{}'", impl_->path, published_name);
  if (impl_->safetensors) return impl_->safetensors->read_floats(found->second.name_in_file);
  return impl_->torch->read_floats(impl_->torch->dictionaries()[impl_->dictionary], found->second.name_in_file);
}

}  // namespace rat
