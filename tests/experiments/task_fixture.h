// Runs small enough to measure in a test, and what is measured of them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>

#include "experiments/tasks/task.h"
#include "tests/experiments/tiny_run.h"

namespace rat {

inline RunSpec task_spec(const std::string& kind, const std::string& layers = "rat:8,attention", int64_t vocab = 33,
                         int64_t seq_len = 32) {
  RunSpec spec = tiny_spec("", layers);
  spec.data = DataConfig{};
  spec.data.kind = kind;
  spec.data.queries = 8;
  spec.model.vocab = vocab;
  spec.train.seq_len = seq_len;
  spec.train.eval_tokens = 40 * seq_len;
  return spec;
}

inline std::unique_ptr<Model> model_of(const RunSpec& spec) {
  auto model = Model::create(spec.model, 3);
  EXPECT_TRUE(model);
  return *std::move(model);
}

// A model whose logits are all equal: its loss is ln V, and the token it finds most likely is the first.
inline std::unique_ptr<Model> uniform_model(const RunSpec& spec) {
  auto model = model_of(spec);
  for (const Parameter& parameter : model->parameters()) std::ranges::fill(parameter.value, 0.0f);
  return model;
}

inline Result<Evaluation> measure(const RunSpec& spec, const std::string& task, Model& model, TaskOptions options = {},
                                  const StopFlag* stop = nullptr) {
  const auto found = find_task(task);
  EXPECT_TRUE(found);
  const TaskContext context{model, spec, options, stop, {}};
  return (*found)->run(context);
}

inline std::string refusal(const RunSpec& spec, const std::string& task, const TaskOptions& options = {}) {
  const auto model = model_of(spec);
  const auto evaluation = measure(spec, task, *model, options);
  return evaluation ? "" : evaluation.error().message;
}

inline const EvaluationPoint& point(const Evaluation& evaluation, const std::string& metric, int64_t seq_len) {
  static const EvaluationPoint missing{};
  const EvaluationPoint* found = overall(evaluation, metric, seq_len);
  EXPECT_TRUE(found) << metric << " at T = " << seq_len;
  return found ? *found : missing;
}

}  // namespace rat
