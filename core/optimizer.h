// AdamW with global-norm clipping, and the learning-rate schedule.
// Decoupled weight decay on every parameter, as the published training code: p -= lr * (m^ / (sqrt(v^) + eps) + wd * p).
#pragma once

#include <span>
#include <vector>

#include "core/model.h"

namespace rat {

struct OptimizerConfig {
  double lr = 8e-4;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;  // global gradient norm; 0 does not clip
  bool operator==(const OptimizerConfig&) const = default;
};

enum class Schedule { constant, cosine };

// Learning rate for step `step` (0-based) of `steps`: linear warm-up over `warmup` steps, then constant or a cosine
// to `final_fraction * lr` at the last step.
double learning_rate(Schedule schedule, double lr, int64_t step, int64_t steps, int64_t warmup, double final_fraction = 0.1);

class AdamW {
 public:
  AdamW(std::span<const Parameter> parameters, OptimizerConfig config);

  struct StepResult {
    double grad_norm = 0;   // global L2 norm before clipping
    bool skipped = false;   // the norm was NaN or infinite: nothing was changed
  };
  // Clips, then updates every parameter with learning rate `lr`. Gradients are left as they are.
  StepResult step(std::span<Parameter> parameters, double lr);

  // For checkpoints: first and second moments, one span per parameter in order, and the step counter.
  int64_t step_count() const { return steps_; }
  void set_step_count(int64_t steps) { steps_ = steps; }
  std::span<float> first_moment(std::size_t parameter) { return m_[parameter]; }
  std::span<float> second_moment(std::size_t parameter) { return v_[parameter]; }

 private:
  OptimizerConfig config_;
  int64_t steps_ = 0;
  std::vector<std::vector<float>> m_, v_;
};

}  // namespace rat
