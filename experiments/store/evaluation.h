// What was measured of a checkpoint: the numbers of one task, as tasks make them and the store keeps them.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace rat {

// One number: the mean over `targets` predictions in `sequences` sequences of `seq_len` tokens.
struct EvaluationPoint {
  std::string metric;  // "loss" (nats), "loss_beyond", "loss_difference", "accuracy", "chance", "context_chance"
  int64_t seq_len = 0;
  std::optional<double> depth;      // needle: 0 start .. 1 end
  std::optional<int64_t> position;  // loss by position, 0-based
  double value = 0;
  double standard_error = std::nan("");  // over sequences; NaN: fewer than two
  int64_t sequences = 0, targets = 0;
};

struct Evaluation {
  std::string task;
  int64_t step = 0;      // of the checkpoint
  std::string settings;  // JSON
  std::string data_description, data_hash, device, dtype;
  std::vector<std::string> notes;  // what was left out and why, one sentence each
  std::string commit;              // of the program that measured
  double created_at = 0, elapsed_s = 0;
  std::vector<EvaluationPoint> points;
};

// The value over all depths and positions, or null.
inline const EvaluationPoint* overall(const Evaluation& evaluation, const std::string& metric, int64_t seq_len) {
  for (const EvaluationPoint& point : evaluation.points)
    if (point.metric == metric && point.seq_len == seq_len && !point.depth && !point.position) return &point;
  return nullptr;
}

}  // namespace rat
