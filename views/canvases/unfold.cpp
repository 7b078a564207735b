#include "views/canvases/unfold.h"

#include <algorithm>

namespace rat::views {

std::vector<float> retention(const TraceSnapshot& trace, int layer, int head, int64_t begin, int64_t end) {
  const ProbeTensor* gate = trace.find(Probe::gate, layer);
  if (!gate || gate->shape.size() != 2 || begin < 0 || end > gate->shape[0] || begin >= end) return {};
  const int64_t channels = gate->shape[1] / std::max<int64_t>(trace.model.heads, 1), first = head * channels;
  if (channels < 1 || first + channels > gate->shape[1]) return {};
  std::vector<float> share(static_cast<std::size_t>(end - begin), 0.0f);
  for (int64_t p = first; p < first + channels; ++p) {
    double kept = 1;
    for (int64_t t = end - 1; t >= begin; --t) {
      const double g = gate->row(t)[static_cast<std::size_t>(p)];
      share[static_cast<std::size_t>(t - begin)] += static_cast<float>((1 - g) * kept / static_cast<double>(channels));
      kept *= g;
    }
  }
  return share;
}

}  // namespace rat::views
