// AdamW with global-norm clipping, and the learning-rate schedule.
// Decoupled weight decay on every parameter, as the published training code:
//   p -= lr * (m^ / (sqrt(v^) + eps) + wd * p)
#pragma once

#include <span>
#include <vector>

#include "core/mirrored.h"
#include "core/model.h"
#include "kernels/adamw/adamw.h"

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
double learning_rate(Schedule schedule, double lr, int64_t step, int64_t steps, int64_t warmup,
                     double final_fraction = 0.1);

class AdamW {
 public:
  // `exec`: where the model computes.
  AdamW(std::span<const Parameter> parameters, OptimizerConfig config, const kernels::Exec& exec = {});

  struct StepResult {
    double grad_norm = 0;  // global L2 norm before clipping
    bool skipped = false;  // the norm was NaN or infinite: nothing was changed
  };
  // Clips, then updates every parameter with learning rate `lr`. Gradients are left as they are. An error only where
  // the device has failed.
  Result<StepResult> step(Model& model, double lr);
  // The same for parameters that lie where the optimizer computes.
  Result<StepResult> step(std::span<const Parameter> parameters, double lr);

  // For checkpoints: first and second moments on the host, one span per parameter in order, and the step counter.
  int64_t step_count() const { return steps_; }
  void set_step_count(int64_t steps) { steps_ = steps; }
  std::span<float> first_moment(std::size_t parameter) { return place_[parameter].of(m_.host()); }
  std::span<float> second_moment(std::size_t parameter) { return place_[parameter].of(v_.host()); }

 private:
  struct Place {  // of a parameter's moments in the block
    std::size_t begin = 0, size = 0;
    std::span<float> of(std::span<float> block) const { return block.subspan(begin, size); }
  };
  static std::vector<Place> places(std::span<const Parameter> parameters);

  OptimizerConfig config_;
  kernels::Exec exec_;
  int64_t steps_ = 0;
  std::vector<Place> place_;
  Mirrored m_, v_;
  std::vector<kernels::AdamWTensor> tensors_;  // kept, so that a step allocates nothing
};

}  // namespace rat
