#include "core/mixer_list.h"

#include <algorithm>
#include <numeric>

#include "core/mixers/mixers.h"

namespace rat {
namespace {

// Edit distance, for "did you mean".
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

std::span<const MixerType> mixer_types() {
  static const std::vector<MixerType> list{rat_mixer_type(),        attention_mixer_type(), swa_mixer_type(),
                                           rnn_mixer_type(),        ratplus_mixer_type(),   rattention_mixer_type(),
                                           linear_mixer_type()};
  return list;
}

Result<const MixerType*> find_mixer_type(std::string_view name) {
  const MixerType* nearest = nullptr;
  std::string known;
  for (const MixerType& type : mixer_types()) {
    if (type.name == name) return &type;
    known += (known.empty() ? "" : ", ") + std::string(type.name);
    if (!nearest || distance(type.name, name) < distance(nearest->name, name)) nearest = &type;
  }
  return fail(ErrorCode::invalid_argument, "there is no mixer '{}'; did you mean '{}'? Known mixers: {}",
              name.substr(0, 64), nearest->name, known);
}

}  // namespace rat
