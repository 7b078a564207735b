#include "views/plots/metric_info.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace rat {
namespace {

struct Known {
  std::string_view name, title, unit;
  bool lower_is_better, known_direction, per_step;
};

constexpr std::array<Known, 13> all{{
    {"loss", "training loss", "nats", true, true, true},
    {"val_loss", "validation loss", "nats", true, true, false},
    {"val_accuracy", "validation accuracy", "share", false, true, false},
    {"lr", "learning rate", "", false, false, true},
    {"grad_norm", "gradient norm", "", false, false, true},
    {"tokens_per_s", "training speed", "tokens/s", false, true, true},
    {"step_ms", "step time", "ms", true, true, true},
    {"probe_ms", "probe time", "ms a step", true, true, true},
    {"prefill_tokens_per_s", "prefill speed", "tokens/s", false, true, false},
    {"decode_tokens_per_s", "decode speed", "tokens/s", false, true, false},
    {"cache_bytes", "cache", "B", true, true, false},
    {"peak_bytes", "peak memory", "B", true, true, false},
    {"seconds", "time", "s", true, true, false},
}};

}  // namespace

MetricInfo metric_info(std::string_view metric) {
  for (const Known& known : all)
    if (known.name == metric)
      return {std::string(known.title), std::string(known.unit), known.lower_is_better, known.known_direction,
              known.per_step};
  constexpr std::string_view op = "op_ms/";
  if (metric.starts_with(op)) return {std::string(metric.substr(op.size())), "ms a step", true, true, true};
  std::string title(metric);
  std::replace(title.begin(), title.end(), '_', ' ');
  return {title, "", false, false, false};
}

std::string short_number(double value) {
  if (!std::isfinite(value)) return fmt::format("{}", value);
  constexpr std::array<std::string_view, 5> prefix{"", " k", " M", " G", " T"};
  double size = std::abs(value);
  std::size_t i = 0;
  while (size >= 999.5 && i + 1 < prefix.size()) size /= 1000, ++i;
  const double scaled = std::copysign(size, value);
  if (size != 0 && size < 0.001) return fmt::format("{:.2e}", value);
  const int decimals = size >= 99.95 || size == 0 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3;
  std::string digits = fmt::format("{:.{}f}", scaled, decimals);
  if (i == 0 && digits.find('.') != std::string::npos && value == std::floor(value))
    digits = fmt::format("{:.0f}", value);
  return digits + std::string(prefix[i]);
}

std::string with_unit(double value, const MetricInfo& metric) {
  std::string number = short_number(value);
  if (metric.unit.empty() || metric.unit == "share") return number;
  // The prefix belongs to the unit: "590 kB", but "61.3 k tokens/s".
  if (metric.unit != "B") return number + " " + metric.unit;
  return number.find(' ') == std::string::npos ? number + " B" : number + "B";
}

}  // namespace rat
