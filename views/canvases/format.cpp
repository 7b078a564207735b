#include "views/canvases/format.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

namespace rat::views {
namespace {

// Three significant digits without an exponent, for |value| < 1000.
std::string three_digits(double value) {
  const double size = std::abs(value);
  return fmt::format("{:.{}f}", value, size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

}  // namespace

std::string grouped(int64_t value) {
  const std::string digits =
      fmt::format("{}", value < 0 ? -static_cast<uint64_t>(value) : static_cast<uint64_t>(value));
  std::string out(value < 0 ? 1 : 0, '-');
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

std::string si(double value, std::string_view unit) {
  if (std::isnan(value)) return "-";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  static constexpr std::array<std::string_view, 6> prefixes{"", "k", "M", "G", "T", "P"};
  std::size_t step = 0;
  while (std::abs(value) >= 999.5 && step + 1 < prefixes.size()) value /= 1000, ++step;
  std::string out = step == 0 && value == std::floor(value) ? fmt::format("{:.0f}", value) : three_digits(value);
  if (!prefixes[step].empty()) out += fmt::format(" {}", prefixes[step]);
  if (!unit.empty()) out += fmt::format("{}{}", prefixes[step].empty() ? " " : unit.size() <= 2 ? "" : " ", unit);
  return out;
}

std::string bytes_text(double bytes) {
  if (std::isnan(bytes)) return "-";
  static constexpr std::array<std::string_view, 5> units{"B", "kB", "MB", "GB", "TB"};
  std::size_t step = 0;
  while (std::abs(bytes) >= 999.5 && step + 1 < units.size()) bytes /= 1000, ++step;
  return step == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{} {}", three_digits(bytes), units[step]);
}

std::string milliseconds(double ms) {
  if (std::isnan(ms)) return "-";
  if (ms >= 999.5) return fmt::format("{} s", three_digits(ms / 1000));
  return fmt::format("{} ms", three_digits(ms));
}

std::string percent(double share) {
  if (std::isnan(share)) return "-";
  return fmt::format("{:.1f} %", 100 * share);
}

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  if (value == 0) return "0";
  const double size = std::abs(value);
  if (size >= 0.9995 && size < 999.5) return three_digits(value);
  if (size >= 0.0995 && size < 1) return fmt::format("{:.3f}", value);
  if (size >= 0.001 && size < 1) return fmt::format("{:.{}f}", value, size < 0.00995 ? 5 : 4);
  return fmt::format("{:.2g}", value);
}

std::string fixed(double value, int digits) { return std::isnan(value) ? "-" : fmt::format("{:.{}f}", value, digits); }

std::string half_life_text(double tokens) {
  if (std::isnan(tokens)) return "-";
  if (std::isinf(tokens)) return "never halves";
  return tokens < 999.5 ? fmt::format("{} tok", three_digits(tokens)) : fmt::format("{} tok", si(tokens));
}

}  // namespace rat::views
