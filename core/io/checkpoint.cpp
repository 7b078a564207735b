#include "core/io/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <span>

#include "core/io/atomic_file.h"
#include "core/io/content_hash.h"
#include "core/io/safetensors.h"

namespace rat {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view weights_suffix = ".safetensors";
constexpr std::string_view optimizer_suffix = ".optimizer.safetensors";
constexpr std::string_view format_name = "rat-checkpoint-1";
constexpr std::string_view extra_prefix = "extra.";  // keeps caller keys apart from ours
constexpr const char* checksum_key = "xxh3_64";       // of all values in table order; absent in older files

fs::path optimizer_path(const fs::path& weights) {
  std::string name = weights.filename().string();
  if (name.ends_with(weights_suffix)) name.resize(name.size() - weights_suffix.size());
  return weights.parent_path() / (name + std::string(optimizer_suffix));
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// What the file must hold: one entry per tensor, with the memory it goes to.
struct Destination {
  std::string name;
  std::vector<int64_t> shape;
  std::span<float> values;
};

// Every difference between what is wanted and what the file has, or ok.
Status compare_tensors(const fs::path& path, const SafetensorsFile& file,
                       const std::vector<Destination>& destinations) {
  std::vector<std::string> problems;
  for (const Destination& destination : destinations) {
    const auto found = file.tensors().find(destination.name);
    if (found == file.tensors().end())
      problems.push_back(fmt::format("'{}' is missing", destination.name));
    else if (found->second.shape != destination.shape)
      problems.push_back(fmt::format("'{}' is {} instead of {}", destination.name, shape_text(found->second.shape),
                                     shape_text(destination.shape)));
  }
  for (const auto& [name, tensor] : file.tensors())
    if (std::ranges::none_of(destinations, [&](const Destination& destination) { return destination.name == name; }))
      problems.push_back(fmt::format("'{}' {} is not part of the model", name, shape_text(tensor.shape)));
  if (problems.empty()) return ok();
  return fail(ErrorCode::shape_mismatch,
              "{} does not fit the model ({} differences): {}; load it with the model it was saved from", path.string(),
              problems.size(), fmt::join(problems, "; "));
}

// Values read from a file but not yet put in place, so that a failure half-way changes nothing.
using Loaded = std::vector<std::vector<float>>;

std::string checksum_of(const std::vector<Destination>& destinations) {
  ContentHash hash;
  for (const Destination& destination : destinations) hash.update(destination.values);
  return hash.hex();
}

Status check_content(const fs::path& path, const SafetensorsFile& file, const Loaded& loaded) {
  const auto written = file.metadata().find(checksum_key);
  if (written == file.metadata().end()) return ok();
  ContentHash hash;
  for (const std::vector<float>& values : loaded) hash.update(values);
  if (hash.hex() == written->second) return ok();
  return fail(ErrorCode::corrupt_data,
              "{} is damaged: its values have the checksum {}, but {} was written; use another checkpoint or a backup",
              path.string(), hash.hex(), written->second);
}

Result<Loaded> read_all(const fs::path& path, const SafetensorsFile& file,
                        const std::vector<Destination>& destinations) {
  RAT_TRY(compare_tensors(path, file, destinations));
  Loaded loaded;
  for (const Destination& destination : destinations) {
    RAT_ASSIGN(std::vector<float> values, file.read_floats(destination.name));
    loaded.push_back(std::move(values));
  }
  RAT_TRY(check_content(path, file, loaded));
  return loaded;
}

void put_in_place(const Loaded& loaded, const std::vector<Destination>& destinations) {
  for (std::size_t i = 0; i < destinations.size(); ++i) std::ranges::copy(loaded[i], destinations[i].values.begin());
}

std::vector<Destination> weight_destinations(std::span<const Parameter> parameters) {
  std::vector<Destination> destinations;
  for (const Parameter& parameter : parameters) destinations.push_back({parameter.name, parameter.shape, parameter.value});
  return destinations;
}

std::vector<Destination> moment_destinations(std::span<const Parameter> parameters, AdamW& optimizer) {
  std::vector<Destination> destinations;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    destinations.push_back({"m/" + parameters[i].name, parameters[i].shape, optimizer.first_moment(i)});
    destinations.push_back({"v/" + parameters[i].name, parameters[i].shape, optimizer.second_moment(i)});
  }
  return destinations;
}

Result<std::string> metadata_value(const fs::path& path, const SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found != file.metadata().end()) return found->second;
  return fail(ErrorCode::corrupt_data, "{} has no '{}' in its metadata; it is not a checkpoint of this program",
              path.string(), key);
}

Result<int64_t> metadata_number(const fs::path& path, const SafetensorsFile& file, const std::string& key) {
  RAT_ASSIGN(const std::string text, metadata_value(path, file, key));
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= 0) return value;
  return fail(ErrorCode::corrupt_data, "{} has the {} '{}' in its metadata, which is not a count", path.string(), key,
              text);
}

Status check_format(const fs::path& path, const SafetensorsFile& file) {
  RAT_ASSIGN(const std::string format, metadata_value(path, file, "format"));
  if (format == format_name) return ok();
  return fail(ErrorCode::unsupported, "{} has the format '{}'; this program reads '{}'", path.string(), format,
              format_name);
}

// The two files of one checkpoint. Same run and same step: the optimizer file of another save must not slip in.
struct Pair {
  SafetensorsFile weights, optimizer;
  CheckpointMeta meta;
  int64_t optimizer_steps = 0;
};

Result<Pair> open_pair(const fs::path& weights_path) {
  const fs::path moments_path = optimizer_path(weights_path);
  RAT_ASSIGN(SafetensorsFile weights, SafetensorsFile::open(weights_path));
  RAT_ASSIGN(SafetensorsFile optimizer, SafetensorsFile::open(moments_path));
  RAT_TRY(check_format(weights_path, weights));
  RAT_TRY(check_format(moments_path, optimizer));
  CheckpointMeta meta;
  RAT_ASSIGN(meta.step, metadata_number(weights_path, weights, "step"));
  RAT_ASSIGN(meta.run_id, metadata_value(weights_path, weights, "run_id"));
  RAT_ASSIGN(meta.spec_json, metadata_value(weights_path, weights, "spec"));
  RAT_ASSIGN(const int64_t moments_step, metadata_number(moments_path, optimizer, "step"));
  RAT_ASSIGN(const std::string moments_run, metadata_value(moments_path, optimizer, "run_id"));
  RAT_ASSIGN(const int64_t optimizer_steps, metadata_number(moments_path, optimizer, "optimizer_steps"));
  if (moments_step != meta.step || moments_run != meta.run_id)
    return fail(ErrorCode::corrupt_data,
                "{} (run {}, step {}) and {} (run {}, step {}) do not belong together; use an older checkpoint",
                weights_path.string(), meta.run_id, meta.step, moments_path.string(), moments_run, moments_step);
  for (const auto& [key, value] : optimizer.metadata())
    if (key.starts_with(extra_prefix)) meta.extra[key.substr(extra_prefix.size())] = value;
  return Pair{std::move(weights), std::move(optimizer), std::move(meta), optimizer_steps};
}

// The step in "step-00000500.safetensors"; nothing for any other name.
std::optional<int64_t> step_of(const fs::path& path) {
  const std::string name = path.filename().string();
  if (!name.starts_with("step-") || !name.ends_with(weights_suffix) || name.ends_with(optimizer_suffix))
    return std::nullopt;
  int64_t step = 0;
  const char* end = name.data() + name.size() - weights_suffix.size();
  const auto [rest, error] = std::from_chars(name.data() + 5, end, step);
  return error == std::errc() && rest == end ? std::optional(step) : std::nullopt;
}

std::vector<TensorToWrite> to_write(const std::vector<Destination>& destinations) {
  std::vector<TensorToWrite> tensors;
  for (const Destination& destination : destinations)
    tensors.push_back({destination.name, destination.shape, destination.values, {}});
  return tensors;
}

Status write_optimizer(const fs::path& path, std::span<const Parameter> parameters, AdamW& optimizer,
                       const CheckpointMeta& meta) {
  const std::vector<Destination> moments = moment_destinations(parameters, optimizer);
  std::vector<TensorToWrite> tensors = to_write(moments);
  std::map<std::string, std::string> metadata{{"format", std::string(format_name)},
                                              {checksum_key, checksum_of(moments)},
                                              {"step", std::to_string(meta.step)},
                                              {"run_id", meta.run_id},
                                              {"optimizer_steps", std::to_string(optimizer.step_count())}};
  for (const auto& [key, value] : meta.extra) metadata[std::string(extra_prefix) + key] = value;
  return write_safetensors(path, tensors, metadata);
}

}  // namespace

Result<fs::path> save_checkpoint(const fs::path& folder, const Model& model, AdamW& optimizer,
                                 const CheckpointMeta& meta) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    return fail(ErrorCode::io_failure, "The checkpoint folder {} cannot be made: {}", folder.string(), error.message());

  const fs::path weights_path = folder / fmt::format("step-{:08}{}", meta.step, weights_suffix);
  RAT_TRY(write_optimizer(optimizer_path(weights_path), model.parameters(), optimizer, meta));
  const std::vector<Destination> values = weight_destinations(model.parameters());
  RAT_TRY(write_safetensors(weights_path, to_write(values),
                            {{"format", std::string(format_name)},
                             {checksum_key, checksum_of(values)},
                             {"spec", meta.spec_json},
                             {"step", std::to_string(meta.step)},
                             {"run_id", meta.run_id}}));
  return weights_path;
}

Status load_weights(const fs::path& weights, Model& model) {
  RAT_ASSIGN(const SafetensorsFile file, SafetensorsFile::open(weights));
  const std::vector<Destination> destinations = weight_destinations(model.parameters());
  RAT_ASSIGN(const Loaded loaded, read_all(weights, file, destinations));
  put_in_place(loaded, destinations);
  return ok();
}

Result<CheckpointMeta> load_checkpoint(const fs::path& weights, Model& model, AdamW& optimizer) {
  RAT_ASSIGN(const Pair pair, open_pair(weights));
  const std::vector<Destination> values = weight_destinations(model.parameters());
  const std::vector<Destination> moments = moment_destinations(model.parameters(), optimizer);
  RAT_ASSIGN(const Loaded loaded_values, read_all(weights, pair.weights, values));
  RAT_ASSIGN(const Loaded loaded_moments, read_all(optimizer_path(weights), pair.optimizer, moments));
  put_in_place(loaded_values, values);
  put_in_place(loaded_moments, moments);
  optimizer.set_step_count(pair.optimizer_steps);
  return pair.meta;
}

Result<CheckpointMeta> read_checkpoint_meta(const fs::path& weights) {
  RAT_ASSIGN(const Pair pair, open_pair(weights));
  return pair.meta;
}

std::vector<fs::path> list_checkpoints(const fs::path& folder) {
  remove_stale_temporaries(folder);
  std::vector<std::pair<int64_t, fs::path>> found;
  std::error_code ignored;  // no folder yet: no checkpoints
  for (fs::directory_iterator it(folder, ignored), end; !ignored && it != end; it.increment(ignored)) {
    const auto step = step_of(it->path());
    if (step && open_pair(it->path())) found.emplace_back(*step, it->path());
  }
  std::ranges::sort(found);
  std::vector<fs::path> paths;
  for (auto& [step, path] : found) paths.push_back(std::move(path));
  return paths;
}

}  // namespace rat
