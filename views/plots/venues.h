// Column widths and text sizes of the venues people submit to (sources: the venues' own style files).
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "kernels/base/status.h"

namespace rat {

struct Venue {
  std::string_view id, name;
  double column_in, full_in;  // inches
  double label_pt, tick_pt;   // axis labels; ticks and legend
};

std::span<const Venue> venues();
Result<Venue> find_venue(std::string_view id);  // lists the known ones

}  // namespace rat
