#include "core/trace/snapshot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/mixer_list.h"

namespace rat {
namespace {

constexpr std::array<std::string_view, static_cast<std::size_t>(Probe::count)> probe_names{
    "gate",     "out_gate", "state_k", "state_v", "attention", "attention_overview", "attention_entropy",
    "residual", "logits"};

}  // namespace

std::string_view probe_name(Probe probe) { return probe_names[static_cast<std::size_t>(probe)]; }

Result<Probe> parse_probe(std::string_view name) {
  std::string known;
  for (std::size_t i = 0; i < probe_names.size(); ++i) {
    if (probe_names[i] == name) return static_cast<Probe>(i);
    known += (i ? ", " : "") + std::string(probe_names[i]);
  }
  return fail(ErrorCode::invalid_argument, "there is no probe '{}'; known probes: {}", name.substr(0, 64), known);
}

std::vector<Probe> probes_of(const LayerConfig& layer) {
  const auto type = find_mixer_type(layer.kind);
  std::vector<Probe> probes;
  if (type) probes = (*type)->probes;
  probes.push_back(Probe::residual);
  return probes;
}

double half_life_tokens(double gate) {
  if (gate >= 1.0) return std::numeric_limits<double>::infinity();
  if (gate <= 0.0) return 0.0;
  return std::log(0.5) / std::log(gate);  // NaN stays NaN
}

std::vector<double> channel_half_lives(const ProbeTensor& gate) {
  RAT_CHECK(gate.shape.size() == 2, "a gate is (T, D)");
  const int64_t T = gate.shape[0], D = gate.shape[1];
  std::vector<double> half_lives;
  for (int64_t d = 0; d < D; ++d) {
    double log_sum = 0;
    for (int64_t t = 0; t < T; ++t)
      log_sum += std::log(static_cast<double>(gate.values[static_cast<std::size_t>(t * D + d)]));
    half_lives.push_back(half_life_tokens(std::exp(log_sum / static_cast<double>(std::max<int64_t>(1, T)))));
  }
  return half_lives;
}

}  // namespace rat
