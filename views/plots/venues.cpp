#include "views/plots/venues.h"

#include <array>

namespace rat {
namespace {

// Text block and column widths from the style files; label size = body - 1 pt, ticks and legend 2 pt smaller, as
// tueplots has it (ICML: captions 9, labels 8, ticks 6). AISTATS and UAI share ICML's two-column page.
constexpr std::array<Venue, 11> all{{
    {"neurips", "NeurIPS", 5.5, 5.5, 9, 7},
    {"neurips-half", "NeurIPS, half of a pair", 2.65, 5.5, 8, 7},
    {"iclr", "ICLR", 5.5, 5.5, 9, 7},
    {"icml", "ICML", 3.25, 6.75, 8, 6},
    {"aistats", "AISTATS", 3.25, 6.75, 9, 7},
    {"uai", "UAI", 3.25, 6.75, 9, 7},
    {"acl", "ACL, EMNLP", 3.03, 6.30, 9, 7},
    {"cvpr", "CVPR", 3.25, 6.875, 8, 7},
    {"aaai", "AAAI", 3.3, 6.975, 9, 7},
    {"tmlr", "TMLR", 6.5, 6.5, 9, 7},
    {"jmlr", "JMLR", 6.0, 6.0, 9.95, 8},
}};

}  // namespace

std::span<const Venue> venues() { return all; }

Result<Venue> find_venue(std::string_view id) {
  std::string known;
  for (const Venue& venue : all) {
    if (venue.id == id) return venue;
    known += known.empty() ? "" : ", ";
    known += venue.id;
  }
  return fail(ErrorCode::not_found, "There is no venue '{}'; known are {}.", id, known);
}

}  // namespace rat
