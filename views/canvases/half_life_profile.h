// How long each channel remembers: half-lives beside the rows of a state map, and the share that the chunk length
// wastes.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "views/canvases/heat_map_widget.h"

namespace rat::views {

struct HalfLives {
  std::vector<double> tokens;  // (D), by channel; empty: not recorded
  int64_t reach = 0;           // L, or the tokens seen for a recurrence without chunks
  bool chunked = false;

  double median() const;
  double share_beyond() const;  // of channels whose half-life exceeds `reach`
  std::string summary() const;  // one sentence with numbers
};

// Channels in drawing order: by half-life, longest first, or as they are.
std::vector<int64_t> channel_order(const HalfLives& lives, int64_t channels, bool sorted);

// Horizontal bars on a log2 axis, aligned with the rows `result` shows. `order[row]` is the channel of a row.
void draw_half_life_profile(const Pen& pen, const Box& box, const MapResult& result, const HalfLives& lives,
                            std::span<const int64_t> order, int64_t marked_row);

}  // namespace rat::views
