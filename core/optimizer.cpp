#include "core/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace rat {

double learning_rate(Schedule schedule, double lr, int64_t step, int64_t steps, int64_t warmup, double final_fraction) {
  if (step < warmup) return lr * static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (schedule == Schedule::constant) return lr;
  const int64_t last = std::max<int64_t>(1, steps - 1 - warmup);
  const double done = std::clamp(static_cast<double>(step - warmup) / static_cast<double>(last), 0.0, 1.0);
  return lr * (final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + std::cos(std::numbers::pi * done)));
}

std::vector<AdamW::Place> AdamW::places(std::span<const Parameter> parameters) {
  constexpr std::size_t alignment = 16;  // floats
  std::vector<Place> places;
  std::size_t begin = 0;
  for (const Parameter& parameter : parameters) {
    places.push_back({begin, parameter.value.size()});
    begin += (parameter.value.size() + alignment - 1) / alignment * alignment;
  }
  places.push_back({begin, 0});
  return places;
}

AdamW::AdamW(std::span<const Parameter> parameters, OptimizerConfig config, const kernels::Exec& exec)
    : config_(config),
      exec_(exec),
      place_(places(parameters)),
      m_(*exec.backend, static_cast<int64_t>(place_.back().begin)),
      v_(*exec.backend, static_cast<int64_t>(place_.back().begin)) {}

Result<AdamW::StepResult> AdamW::step(Model& model, double lr) {
  RAT_ASSIGN(const std::span<const Parameter> parameters, model.parameters_to_update());
  return step(parameters, lr);
}

Result<AdamW::StepResult> AdamW::step(std::span<const Parameter> parameters, double lr) {
  RAT_CHECK(parameters.size() + 1 == place_.size(), "an optimizer belongs to the parameters it was made for");
  RAT_TRY(m_.prepare());
  RAT_TRY(v_.prepare());
  tensors_.clear();
  for (std::size_t i = 0; i < parameters.size(); ++i)
    tensors_.push_back({.value = parameters[i].value,
                        .grad = parameters[i].grad,
                        .m = place_[i].of(m_.device()),
                        .v = place_[i].of(v_.device())});
  m_.device_writes();
  v_.device_writes();
  const auto t = static_cast<double>(steps_ + 1);
  double squares = 0;
  RAT_TRY(kernels::adamw({.tensors = tensors_,
                          .lr = lr,
                          .beta1 = config_.beta1,
                          .beta2 = config_.beta2,
                          .eps = config_.eps,
                          .weight_decay = config_.weight_decay,
                          .correction1 = 1.0 - std::pow(config_.beta1, t),
                          .correction2 = 1.0 - std::pow(config_.beta2, t),
                          .clip = config_.clip,
                          .squared_norm = &squares},
                         exec_));
  const StepResult result{std::sqrt(squares), !std::isfinite(squares)};
  if (!result.skipped) ++steps_;
  return result;
}

}  // namespace rat
