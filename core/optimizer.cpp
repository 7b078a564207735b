#include "core/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/adamw/adamw.h"

namespace rat {

double learning_rate(Schedule schedule, double lr, int64_t step, int64_t steps, int64_t warmup, double final_fraction) {
  if (step < warmup) return lr * static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (schedule == Schedule::constant) return lr;
  const int64_t last = std::max<int64_t>(1, steps - 1 - warmup);
  const double done = std::clamp(static_cast<double>(step - warmup) / static_cast<double>(last), 0.0, 1.0);
  return lr * (final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + std::cos(std::numbers::pi * done)));
}

AdamW::AdamW(std::span<const Parameter> parameters, OptimizerConfig config) : config_(config) {
  for (const Parameter& parameter : parameters) {
    m_.emplace_back(parameter.value.size(), 0.0f);
    v_.emplace_back(parameter.value.size(), 0.0f);
  }
}

AdamW::StepResult AdamW::step(std::span<Parameter> parameters, double lr) {
  RAT_CHECK(parameters.size() == m_.size(), "an optimizer belongs to the parameters it was made for");
  double squares = 0;
  for (const Parameter& parameter : parameters) {
    const Status status = kernels::squared_norm({.x = parameter.grad, .sum = &squares}, {});
    RAT_CHECK(bool(status), status.error().message);
  }
  StepResult result{std::sqrt(squares), false};
  if (!std::isfinite(result.grad_norm)) {
    result.skipped = true;
    return result;
  }
  ++steps_;
  const double scale = config_.clip > 0 ? std::min(1.0, config_.clip / (result.grad_norm + 1e-6)) : 1.0;  // as PyTorch
  const auto t = static_cast<double>(steps_);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Status status = kernels::adamw({.value = parameters[i].value,
                                          .grad = parameters[i].grad,
                                          .m = m_[i],
                                          .v = v_[i],
                                          .lr = lr,
                                          .beta1 = config_.beta1,
                                          .beta2 = config_.beta2,
                                          .eps = config_.eps,
                                          .weight_decay = config_.weight_decay,
                                          .correction1 = 1.0 - std::pow(config_.beta1, t),
                                          .correction2 = 1.0 - std::pow(config_.beta2, t),
                                          .grad_scale = scale},
                                         {});
    RAT_CHECK(bool(status), status.error().message);
  }
  return result;
}

}  // namespace rat
