// Traces as safetensors: one tensor for each probe and layer ("attention/2"), the token ids, everything else as text
// in the metadata.
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/io/safetensors.h"
#include "views/plots/recipe.h"

namespace rat {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view format_name = "rat-trace-1";

std::string model_json(const ModelConfig& model) {
  return Json{{"vocab", model.vocab},         {"d_model", model.d_model},
              {"heads", model.heads},         {"groups", model.groups},
              {"kv_heads", model.kv_heads},   {"ffn_mult", model.ffn_mult},
              {"pos", model.positions == Positions::rope ? "rope" : "none"},
              {"rope_base", model.rope_base}, {"layers", format_layers(model.layers)}}
      .dump();
}

// What each token is, for whoever reads the file without the tokenizer. Parts of characters become U+FFFD.
std::string pieces_json(const TraceSnapshot& trace) {
  Json pieces = Json::array();
  for (const int32_t token : trace.tokens) {
    const std::string text = trace.tokenizer->bytes_of(token);
    pieces.push_back(text.empty() ? trace.tokenizer->symbol(token) : text);
  }
  return pieces.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<ModelConfig> parse_model(const std::string& text) {
  ModelConfig model;
  try {
    const Json json = Json::parse(text);
    json.at("vocab").get_to(model.vocab);
    json.at("d_model").get_to(model.d_model);
    json.at("heads").get_to(model.heads);
    json.at("groups").get_to(model.groups);
    model.kv_heads = json.value("kv_heads", int64_t{0});  // traces from before it have no such key
    json.at("ffn_mult").get_to(model.ffn_mult);
    json.at("rope_base").get_to(model.rope_base);
    model.positions = json.at("pos").get<std::string>() == "none" ? Positions::none : Positions::rope;
    RAT_ASSIGN(model.layers, parse_layers(json.at("layers").get<std::string>()));
  } catch (const Json::exception& error) {
    return fail(ErrorCode::corrupt_data, "its model description is not readable ({})", error.what());
  }
  RAT_TRY(validate(model));
  return model;
}

Result<std::string> text_of(const std::map<std::string, std::string>& metadata, const std::string& key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return fail(ErrorCode::corrupt_data, "its metadata has no '{}'", key);
  return found->second;
}

template <class Number>
Result<Number> number_of(const std::map<std::string, std::string>& metadata, const std::string& key) {
  RAT_ASSIGN(const std::string text, text_of(metadata, key));
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return fail(ErrorCode::corrupt_data, "its '{}' is '{}', which is not a number", key, text);
  return value;
}

// "attention/2" -> (attention, 2).
Result<std::pair<Probe, int>> parse_tensor_name(const std::string& name) {
  const auto slash = name.rfind('/');
  int layer = 0;
  const char* first = name.data() + slash + 1;
  const char* last = name.data() + name.size();
  if (slash == std::string::npos || std::from_chars(first, last, layer).ptr != last || first == last || layer < -1)
    return fail(ErrorCode::corrupt_data, "its tensor '{}' is not named <probe>/<layer>", name);
  RAT_ASSIGN(const Probe probe, parse_probe(name.substr(0, slash)));
  return std::pair(probe, layer);
}

// Errors here are half sentences: read_trace puts the file's name before them.
Result<TraceSnapshot> read_checked(const SafetensorsFile& file) {
  const auto& metadata = file.metadata();
  RAT_ASSIGN(const std::string format, text_of(metadata, "format"));
  if (format != format_name) return fail(ErrorCode::corrupt_data, "its format is '{}', not '{}'", format, format_name);
  TraceSnapshot trace;
  RAT_ASSIGN(trace.run_id, text_of(metadata, "run_id"));
  RAT_ASSIGN(trace.source, text_of(metadata, "source"));
  RAT_ASSIGN(trace.device, text_of(metadata, "device"));
  RAT_ASSIGN(trace.dtype, text_of(metadata, "dtype"));
  RAT_ASSIGN(trace.kernel_path, text_of(metadata, "kernel_path"));
  RAT_ASSIGN(trace.step, number_of<int64_t>(metadata, "step"));
  RAT_ASSIGN(trace.serial, number_of<uint64_t>(metadata, "serial"));
  RAT_ASSIGN(trace.cost_ms, number_of<double>(metadata, "cost_ms"));
  RAT_ASSIGN(const std::string bytes, text_of(metadata, "byte_tokens"));
  trace.byte_tokens = bytes == "true";
  RAT_ASSIGN(const std::string model, text_of(metadata, "model"));
  RAT_ASSIGN(trace.model, parse_model(model));
  RAT_ASSIGN(trace.tokens, file.read_ints("tokens"));
  for (const auto& [name, info] : file.tensors()) {
    if (name == "tokens") continue;
    RAT_ASSIGN(const auto id, parse_tensor_name(name));
    ProbeTensor tensor{id.first, id.second, info.shape, {}};
    RAT_ASSIGN(tensor.values, file.read_floats(name));
    trace.tensors.push_back(std::move(tensor));
  }
  return trace;
}

}  // namespace

Status write_trace(const std::filesystem::path& path, const TraceSnapshot& trace) {
  std::vector<TensorToWrite> tensors;
  tensors.push_back({"tokens", {trace.token_count()}, {}, trace.tokens});
  for (const ProbeTensor& tensor : trace.tensors)
    tensors.push_back({fmt::format("{}/{}", probe_name(tensor.probe), tensor.layer), tensor.shape, tensor.values, {}});
  std::map<std::string, std::string> metadata{{"format", std::string(format_name)},
                                              {"run_id", trace.run_id},
                                              {"source", trace.source},
                                              {"device", trace.device},
                                              {"dtype", trace.dtype},
                                              {"kernel_path", trace.kernel_path},
                                              {"step", fmt::format("{}", trace.step)},
                                              {"serial", fmt::format("{}", trace.serial)},
                                              {"cost_ms", fmt::format("{}", trace.cost_ms)},
                                              {"byte_tokens", trace.byte_tokens ? "true" : "false"},
                                              {"model", model_json(trace.model)}};
  if (trace.tokenizer) {
    metadata["tokenizer"] = trace.tokenizer->name();
    metadata["pieces"] = pieces_json(trace);
  }
  return write_safetensors(path, tensors, metadata);
}

Result<TraceSnapshot> read_trace(const std::filesystem::path& path) {
  RAT_ASSIGN(const SafetensorsFile file, SafetensorsFile::open(path));
  auto trace = read_checked(file);
  if (trace || trace.error().code != ErrorCode::corrupt_data) return trace;
  return fail(ErrorCode::corrupt_data, "'{}' is not a trace we can read: {}.", path.string(), trace.error().message);
}

TraceSnapshot trace_of_figure(const Recipe& recipe, const TraceSnapshot& trace) {
  TraceSnapshot needed = trace;
  const Probe probe = recipe.kind == FigureKind::attention ? Probe::attention : recipe.probe;
  std::erase_if(needed.tensors, [&](const ProbeTensor& tensor) {
    const bool drawn = tensor.probe == probe, sorts = recipe.sort_channels && tensor.probe == Probe::gate;
    return tensor.layer != recipe.layer || !(drawn || sorts);
  });
  return needed;
}

}  // namespace rat
