// The shorthand for a list of layers: parse_layers, format_layers (declared in core/config.h).
#include <algorithm>
#include <charconv>
#include <limits>
#include <tuple>

#include "core/config.h"
#include "core/mixer_list.h"
#include "core/presets.h"

namespace rat {
namespace {

constexpr std::size_t max_layers = 512;

// Recursive descent over
//   sequence = item { "," item } ;  item = ( layer | preset | "(" sequence ")" ) [ "*" N ]
//   layer = kind [ ":" N ] { "/" setting } ;  setting = "w" N | "s" N | "rope" | "nope"
// where "*N" after a layer repeats everything since the previous "*N" of the same sequence.
class PatternParser {
 public:
  explicit PatternParser(std::string_view text) : text_(text) {}

  Result<std::vector<LayerConfig>> parse() {
    RAT_ASSIGN(auto layers, sequence(0));
    if (at_ < text_.size()) return error("unexpected '{}'", text_[at_]);
    return layers;
  }

 private:
  template <class... Args>
  Error error(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(ErrorCode::invalid_argument,
                "layer pattern '{}', character {}: {}; write for example rat:16*4 or "
                "(rat:16,swa:128)*2,attention",
                text_, at_ + 1, fmt::format(format, std::forward<Args>(args)...));
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }
  bool take(char wanted) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != wanted) return false;
    ++at_;
    skip_space();
    return true;
  }

  Result<int64_t> number(const char* what, int64_t minimum) {
    skip_space();
    int64_t value = 0;
    const char* begin = text_.data() + at_;
    const auto [end, code] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (code == std::errc::result_out_of_range) return error("the {} is too large", what);
    if (code != std::errc()) return error("a {} (a whole number) is expected here", what);
    if (value < minimum) return error("the {} is {} but must be at least {}", what, value, minimum);
    at_ += static_cast<std::size_t>(end - begin);
    skip_space();
    return value;
  }

  std::string_view word() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && std::string_view(",:*()/ \t").find(text_[at_]) == std::string_view::npos) ++at_;
    return text_.substr(begin, at_ - begin);
  }

  Result<LayerConfig> layer(std::string_view kind) {
    const auto made = default_layer(kind);
    if (!made) return error("{}", made.error().message);
    LayerConfig layer = *made;
    const MixerType& type = **find_mixer_type(kind);
    if (take(':')) {
      if (type.uses_chunk) {
        RAT_ASSIGN(layer.chunk, number("chunk length", 1));
      } else if (type.uses_dilation) {
        RAT_ASSIGN(layer.dilation, number("dilation", 1));
      } else if (type.uses_window) {
        RAT_ASSIGN(layer.window, number("window", 0));
      } else {
        return error("{} takes no number", layer.kind);
      }
    }
    while (take('/')) RAT_TRY(setting(type, layer));
    return layer;
  }

  Status setting(const MixerType& type, LayerConfig& layer) {
    const std::string_view rest = text_.substr(at_);
    if (type.uses_positions && (rest.starts_with("nope") || rest.starts_with("rope"))) {
      layer.pos = rest.starts_with("nope") ? Positions::none : Positions::rope;
      at_ += 4;
      skip_space();
      return ok();
    }
    // The window of other kinds is the number after their colon.
    const bool window = type.uses_window && type.uses_dilation;
    for (const auto& [letter, name, applies, value] :
         {std::tuple{'w', "window", window, &layer.window},
          std::tuple{'s', "number of initial tokens", type.uses_initial, &layer.initial}})
      if (applies && rest.starts_with(letter)) {
        ++at_;
        RAT_ASSIGN(*value, number(name, 0));
        return ok();
      }
    return error("{} takes {}after a slash", layer.kind,
                 window                ? "w and s with a number, nope or rope "
                 : type.uses_positions ? "nope or rope "
                                       : "nothing ");
  }

  Status repeat(std::vector<LayerConfig>& layers, std::size_t from, int64_t count) {
    const std::vector<LayerConfig> unit(layers.begin() + static_cast<std::ptrdiff_t>(from), layers.end());
    if (unit.size() * static_cast<std::size_t>(std::min<int64_t>(count, max_layers + 1)) + from > max_layers)
      return error("more than {} layers", max_layers);
    for (int64_t i = 1; i < count; ++i) layers.insert(layers.end(), unit.begin(), unit.end());
    return ok();
  }

  Result<std::vector<LayerConfig>> sequence(int depth) {
    if (depth > 16) return error("more than 16 nested parentheses");
    std::vector<LayerConfig> layers;
    std::size_t unit_begin = 0;  // what a "*N" after a layer repeats starts here
    skip_space();
    do {
      std::size_t repeat_from = unit_begin;
      if (take('(')) {
        repeat_from = layers.size();
        RAT_ASSIGN(const auto group, sequence(depth + 1));
        if (!take(')')) return error("a ')' is missing");
        layers.insert(layers.end(), group.begin(), group.end());
      } else {
        const std::string_view name = word();
        if (name.empty()) return error("a layer name is expected here");
        if (const LayerPreset* preset = find_layer_preset(name)) {
          repeat_from = layers.size();
          RAT_ASSIGN(const auto group, parse_layers(preset->pattern));
          layers.insert(layers.end(), group.begin(), group.end());
        } else {
          RAT_ASSIGN(auto one, layer(name));
          layers.push_back(std::move(one));
        }
      }
      skip_space();
      if (layers.size() > max_layers) return error("more than {} layers", max_layers);
      if (take('*')) {
        RAT_ASSIGN(const int64_t count, number("repeat count", 1));
        RAT_TRY(repeat(layers, repeat_from, count));
        unit_begin = layers.size();
      }
    } while (take(','));
    return layers;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

// The best text found for a prefix of the layers. `pending`: it ends in layers that a following "*N" would repeat.
struct Prefix {
  std::size_t length = std::numeric_limits<std::size_t>::max();
  std::string text;
};

void keep_shorter(Prefix& best, const Prefix& before, const std::string& item) {
  if (before.length == std::numeric_limits<std::size_t>::max()) return;
  const std::size_t length = before.length + item.size() + (before.text.empty() ? 0 : 1);
  if (length < best.length) best = {length, before.text.empty() ? item : before.text + "," + item};
}

bool repeats(const std::vector<LayerConfig>& layers, std::size_t at, std::size_t unit, std::size_t times) {
  const auto begin = layers.begin() + static_cast<std::ptrdiff_t>(at);
  const auto last = begin + static_cast<std::ptrdiff_t>(unit * (times - 1));
  return std::equal(begin, begin + static_cast<std::ptrdiff_t>(unit), last);
}

}  // namespace

Result<std::vector<LayerConfig>> parse_layers(std::string_view pattern) { return PatternParser(pattern).parse(); }

Result<LayerConfig> default_layer(std::string_view kind) {
  RAT_ASSIGN(const MixerType* type, find_mixer_type(kind));
  LayerConfig layer;
  layer.kind = kind;
  layer.window = type->default_window;
  return layer;
}

std::string format_layer(const LayerConfig& layer) {
  const auto type = find_mixer_type(layer.kind);
  if (!type) return layer.kind;
  std::string text = layer.kind;
  if ((*type)->uses_chunk) {
    text += fmt::format(":{}", layer.chunk);
  } else if ((*type)->uses_dilation) {
    if (layer.dilation != 1) text += fmt::format(":{}", layer.dilation);
    if (layer.window != (*type)->default_window) text += fmt::format("/w{}", layer.window);
  } else if ((*type)->uses_window) {
    text += fmt::format(":{}", layer.window);
  }
  if ((*type)->uses_initial && layer.initial != 0) text += fmt::format("/s{}", layer.initial);
  if (layer.pos) text += *layer.pos == Positions::none ? "/nope" : "/rope";
  return text;
}

// Dynamic programming over prefixes; a repeated unit is a plain list of layers (no repeats within repeats).
std::string format_layers(const std::vector<LayerConfig>& layers) {
  constexpr std::size_t longest_unit = 32;
  const std::size_t n = layers.size();
  std::vector<Prefix> closed(n + 1), pending(n + 1);  // text after which "*N" repeats nothing / something earlier
  closed[0].length = 0;
  for (std::size_t at = 0; at < n; ++at) {
    std::string unit_text;
    for (std::size_t unit = 1; unit <= std::min(longest_unit, n - at); ++unit) {
      unit_text += (unit > 1 ? "," : "") + format_layer(layers[at + unit - 1]);
      for (std::size_t times = 2; at + unit * times <= n && repeats(layers, at, unit, times); ++times) {
        Prefix& after = closed[at + unit * times];
        keep_shorter(after, closed[at], fmt::format("{}*{}", unit_text, times));
        keep_shorter(after, pending[at], fmt::format("({})*{}", unit_text, times));
      }
    }
    keep_shorter(pending[at + 1], closed[at], format_layer(layers[at]));
    keep_shorter(pending[at + 1], pending[at], format_layer(layers[at]));
  }
  return closed[n].length <= pending[n].length ? closed[n].text : pending[n].text;
}

}  // namespace rat
