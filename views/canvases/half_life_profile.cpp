#include "views/canvases/half_life_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "views/canvases/format.h"
#include "views/canvases/ticks.h"

namespace rat::views {

double HalfLives::median() const {
  std::vector<double> sorted = tokens;
  std::erase_if(sorted, [](double x) { return std::isnan(x); });
  if (sorted.empty()) return std::nan("");
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

double HalfLives::share_beyond() const {
  if (tokens.empty()) return std::nan("");
  const auto beyond =
      std::count_if(tokens.begin(), tokens.end(), [this](double x) { return x > static_cast<double>(reach); });
  return static_cast<double>(beyond) / static_cast<double>(tokens.size());
}

std::string HalfLives::summary() const {
  if (tokens.empty()) return {};
  const std::string share = percent(share_beyond()), middle = half_life_text(median());
  if (share_beyond() == 0)
    return fmt::format(
        "no channel has a half-life above {} \xc2\xb7 median {}",
        chunked ? fmt::format("L = {}", grouped(reach)) : fmt::format("the {} tokens shown", grouped(reach)), middle);
  if (chunked)
    return fmt::format("{} of channels have a half-life above L = {}: L is wasting these \xc2\xb7 median {}", share,
                       grouped(reach), middle);
  return fmt::format("{} of channels have a half-life above the {} tokens shown \xc2\xb7 median {}", share,
                     grouped(reach), middle);
}

std::vector<int64_t> channel_order(const HalfLives& lives, int64_t channels, bool sorted) {
  std::vector<int64_t> order(static_cast<std::size_t>(channels));
  std::iota(order.begin(), order.end(), 0);
  if (!sorted || static_cast<int64_t>(lives.tokens.size()) != channels) return order;
  const auto key = [&](int64_t c) {  // NaN last
    const double x = lives.tokens[static_cast<std::size_t>(c)];
    return std::isnan(x) ? -1.0 : x;
  };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return key(a) > key(b); });
  return order;
}

void draw_half_life_profile(const Pen& pen, const Box& box, const MapResult& result, const HalfLives& lives,
                            std::span<const int64_t> order, int64_t marked_row) {
  const float line = pen.line_height();
  const Box plot{box.x0 + pen.px(4), result.plot.y0, box.x1 - pen.px(4), result.plot.y1};
  if (plot.empty() || lives.tokens.empty() || order.size() != lives.tokens.size()) return;
  double longest = 2.0 * static_cast<double>(lives.reach);
  for (const double x : lives.tokens)
    if (std::isfinite(x)) longest = std::max(longest, x);
  longest = std::min(longest, 64.0 * static_cast<double>(std::max<int64_t>(lives.reach, 1)));
  const double low = std::log2(0.25), high = std::log2(std::max(longest, 1.0) * 1.1);
  const auto x_of = [&](double tokens) {
    if (std::isnan(tokens)) return plot.x0;
    return plot.x0 +
           static_cast<float>(std::clamp((std::log2(std::max(tokens, 1e-9)) - low) / (high - low), 0.0, 1.0)) *
               plot.width();
  };
  pen.list->PushClipRect({box.x0, box.y0}, {box.x1, box.y1}, true);
  pen.text({plot.x0, plot.y0 - line - pen.px(2)}, pen.theme->secondary, "half-life, tokens");
  const double per_pixel = (result.window.y1 - result.window.y0) / plot.height();
  const auto rows = static_cast<int64_t>(order.size());
  const auto draw_row = [&](float y0, float y1, double tokens, bool marked) {
    const Color color = marked                                      ? pen.theme->text
                        : tokens > static_cast<double>(lives.reach) ? pen.theme->warning
                                                                    : pen.theme->accent;
    const float x1 = std::max(x_of(tokens), plot.x0 + 1);
    pen.list->AddRectFilled({plot.x0, y0}, {x1, std::max(y1, y0 + 1)}, to_imgui(color, marked ? 1.0f : 0.55f));
  };
  if (per_pixel >= 1) {
    for (int y = 0; y < static_cast<int>(plot.height()); ++y) {
      const auto begin = std::max<int64_t>(0, static_cast<int64_t>(result.window.y0 + y * per_pixel));
      const auto end = std::min(rows, static_cast<int64_t>(std::ceil(result.window.y0 + (y + 1) * per_pixel)));
      double most = 0;
      for (int64_t r = begin; r < end; ++r)
        most = std::max(most, lives.tokens[static_cast<std::size_t>(order[static_cast<std::size_t>(r)])]);
      draw_row(plot.y0 + static_cast<float>(y), plot.y0 + static_cast<float>(y) + 1, most,
               marked_row >= begin && marked_row < end);
    }
  } else {
    const auto end = std::min(rows, static_cast<int64_t>(std::ceil(result.window.y1)));
    for (int64_t r = std::max<int64_t>(0, static_cast<int64_t>(result.window.y0)); r < end; ++r) {
      const float y0 = plot.y0 + static_cast<float>((static_cast<double>(r) - result.window.y0) / per_pixel),
                  y1 = y0 + static_cast<float>(1 / per_pixel);
      draw_row(std::clamp(std::round(y0), plot.y0, plot.y1),
               std::clamp(std::round(y1) - (1 / per_pixel > 4 ? 1.0f : 0.0f), plot.y0, plot.y1),
               lives.tokens[static_cast<std::size_t>(order[static_cast<std::size_t>(r)])], r == marked_row);
    }
  }
  pen.hairline(plot.x0, plot.y0, plot.x0, plot.y1);
  pen.hairline(plot.x0, plot.y1, plot.x1, plot.y1);
  const float reach_x = x_of(static_cast<double>(lives.reach));
  pen.list->AddRectFilled({std::round(reach_x), plot.y0},
                          {std::round(reach_x) + std::max(1.0f, std::round(pen.scale)), plot.y1},
                          to_imgui(pen.theme->text, 0.8f));

  // Powers of four, then the reach itself below them.
  float free_from = box.x0;
  for (double tick = 0.25; tick <= longest * 1.1; tick *= 4) {
    const std::string label = tick < 1 ? "\xc2\xbc" : si(tick);
    const float x = x_of(tick), half = pen.width(label) / 2;
    if (x - half < free_from || x + half > box.x1) continue;
    pen.hairline(x, plot.y1, x, plot.y1 + pen.px(3));
    pen.text({x, plot.y1 + pen.px(4)}, pen.theme->secondary, label, Align::center);
    free_from = x + half + pen.px(6);
  }
  const std::string reach = fmt::format("{} = {}", lives.chunked ? "L" : "T", grouped(lives.reach));
  const float half = pen.width(reach) / 2;
  pen.text({std::clamp(reach_x, box.x0 + half, std::max(box.x0 + half, box.x1 - half)), plot.y1 + pen.px(8) + line},
           pen.theme->text, reach, Align::center);
  pen.list->PopClipRect();
}

}  // namespace rat::views
