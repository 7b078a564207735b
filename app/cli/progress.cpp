#include "app/cli/progress.h"

#include <fmt/format.h>

#include <algorithm>

#include "app/cli/output.h"

namespace rat::cli {
namespace {

constexpr auto redraw_every = std::chrono::milliseconds(100);
constexpr auto line_every = std::chrono::seconds(10);
constexpr int64_t lines_per_run = 20;  // 5 % each
constexpr int bar_cells = 24;

}  // namespace

Progress::Progress(std::FILE* out, bool terminal, std::string unit, int64_t done, int64_t total, Clock::time_point now)
    : out_(out),
      terminal_(terminal),
      unit_(std::move(unit)),
      first_(done),
      total_(std::max<int64_t>(total, 1)),
      shown_(done),
      start_(now),
      last_(now - redraw_every) {
  if (!terminal_) last_ = now;
}

std::string Progress::eta(int64_t done, Clock::time_point now) const {
  if (done <= first_ || done >= total_) return "";
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double left = elapsed / static_cast<double>(done - first_) * static_cast<double>(total_ - done);
  return fmt::format("{} left", format_duration(left));
}

void Progress::update(int64_t done, const std::string& details, Clock::time_point now) {
  const bool last = done >= total_;
  if (terminal_) {
    if (!last && now - last_ < redraw_every) return;
    const auto full = static_cast<int>(bar_cells * std::clamp<int64_t>(done, 0, total_) / total_);
    fmt::print(out_, "\r\033[K[{:=>{}}{: >{}}] {} {}/{}  {}  {}", "", full, "", bar_cells - full, unit_, done, total_,
               details, eta(done, now));
    std::fflush(out_);
    drawn_ = true;
  } else {
    const bool due = now - last_ >= line_every || (done - shown_) * lines_per_run >= total_;
    if (!due && !(last && shown_ < done)) return;
    const std::string left = eta(done, now);
    fmt::print(out_, "{} {}/{}  {}{}{}\n", unit_, done, total_, details, left.empty() ? "" : "  ", left);
    std::fflush(out_);
    shown_ = done;
  }
  last_ = now;
}

void Progress::clear() {
  if (!drawn_) return;
  fmt::print(out_, "\r\033[K");
  std::fflush(out_);
  drawn_ = false;
}

}  // namespace rat::cli
