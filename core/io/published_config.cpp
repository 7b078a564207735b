#include "core/io/published_config.h"

#include <array>
#include <charconv>

namespace rat {
namespace {

constexpr int64_t most_layers = 512;  // validate() allows no more

class Settings {
 public:
  explicit Settings(const std::map<std::string, std::string>& values) : values_(values) {}

  std::string text(const std::string& key) const {
    const auto found = values_.find("config.model." + key);
    return found == values_.end() ? "" : found->second;
  }
  // 0: absent or not a number.
  double number(const std::string& key) const {
    const std::string value = text(key);
    double parsed = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), parsed);
    return error == std::errc() && end == value.data() + value.size() && parsed < 1e15 ? parsed : 0;
  }
  int64_t count(const std::string& key) const { return static_cast<int64_t>(number(key)); }

 private:
  const std::map<std::string, std::string>& values_;
};

// backbone.<cell>: {_name_, chunk_size, window_size, num_head or d_head, ngroups}
std::optional<LayerConfig> layer_of(const Settings& settings, const std::string& cell, PublishedConfig& config) {
  const std::string kind = settings.text(cell + "._name_");
  LayerConfig layer;
  if (kind == "rat" || kind == "rat_slow") {  // the same layer, computed with another scan
    layer.kind = "rat";
    layer.chunk = settings.count(cell + ".chunk_size");
    if (const int64_t groups = settings.count(cell + ".ngroups"); groups > 0) config.groups = groups;
    if (layer.chunk < 1) return std::nullopt;
  } else if (kind == "local_attention") {
    layer.kind = "swa";
    layer.window = settings.count(cell + ".window_size");
    if (layer.window < 1) return std::nullopt;
  } else if (kind == "attention" || kind == "rnn") {
    layer.kind = kind;
  } else {
    return std::nullopt;
  }
  const int64_t heads = settings.count(cell + ".num_head"), head_size = settings.count(cell + ".d_head");
  const int64_t width = settings.count("backbone.d_model");
  if (heads > 0) config.heads = heads;
  if (heads <= 0 && head_size > 0 && width % head_size == 0) config.heads = width / head_size;
  return layer;
}

}  // namespace

Status check_published_config(const std::map<std::string, std::string>& values) {
  struct Only {
    const char *key, *value, *what;
  };
  constexpr std::array only{Only{"backbone.hidden_cell.act_fn", "gelu", "activation of the feed-forward layers"},
                            Only{"backbone.hidden_cell.ln", "rmsnorm", "norm of the feed-forward layers"},
                            Only{"backbone.ln", "rmsnorm", "last norm"}};
  const Settings settings(values);
  for (const Only& one : only)
    if (const std::string said = settings.text(one.key); !said.empty() && said != one.value)
      return fail(ErrorCode::unsupported,
                  "The config in the file says model.{} = {}, but the {} of this program is {}: with these weights it "
                  "would compute something else",
                  one.key, said, one.what, one.value);
  return ok();
}

std::optional<PublishedConfig> published_config(const std::map<std::string, std::string>& values) {
  const Settings settings(values);
  const std::string backbone = settings.text("backbone._name_");
  const int64_t count = settings.count("backbone.num_layers");
  if (count < 1 || count > most_layers || (backbone != "sequence" && backbone != "sequence_interleave"))
    return std::nullopt;
  PublishedConfig config;
  const auto main = layer_of(settings, "backbone.seq_cell", config);
  if (!main) return std::nullopt;
  std::optional<LayerConfig> other;
  int64_t step = 0;  // every step-th layer, from the first on, is `other`
  if (backbone == "sequence_interleave") {
    other = layer_of(settings, "backbone.seq_cell1", config);
    step = settings.count("backbone.interleave_step");
    if (!other || step < 1) return std::nullopt;
  }
  for (int64_t i = 0; i < count; ++i) config.layers.push_back(other && i % step == 0 ? *other : *main);
  config.rope_base = settings.number("embedding.pe.base");
  config.no_positions = settings.text("embedding.pe._name_") == "empty";
  return config;
}

}  // namespace rat
