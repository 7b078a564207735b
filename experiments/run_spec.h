// Everything that defines one training run. Validated once, then const; its canonical JSON is stored and hashed.
// Form: DESIGN "Run spec": {"name", "model": {...}, "data": {...}, "train": {...}, "device"}.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/config.h"
#include "core/optimizer.h"
#include "experiments/data/data_source.h"

namespace rat {

struct TrainConfig {
  int64_t steps = 1000;
  int64_t batch = 16;         // sequences per optimizer step
  int64_t accumulate = 1;     // micro-batches a step is split into; must divide batch
  int64_t seq_len = 256;      // T
  OptimizerConfig optimizer;  // JSON keys lr, betas, eps, weight_decay, clip
  int64_t warmup = 50;        // steps
  Schedule schedule = Schedule::cosine;
  // Dilations of the ratplus layers in training, step s taking number s modulo their count: {1, 64} alternates dense and
  // dilated batches, as published. Empty: the layers' own. Evaluation always uses the layers' own.
  std::vector<int64_t> dilations;
  std::string dtype = "f32";
  uint64_t seed = 1;
  int64_t eval_every = 100;        // steps; 0: only at the end
  int64_t eval_tokens = 16384;     // validation targets per evaluation, always the same ones
  int64_t checkpoint_every = 500;  // steps; the last step is always saved
  int64_t probe_every = 0;         // steps between stored probe scalars (gate half-life, attention entropy); 0: none
};

struct RunSpec {
  std::string name;
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  std::string device = "cpu";
};

// Unknown keys are errors that suggest the nearest known one. Missing keys take the defaults above.
Result<RunSpec> parse_spec(std::string_view json);
std::string to_json(const RunSpec& spec, int indent = -1);  // canonical: every key, fixed order
// One dotted assignment as `--set train.lr=1e-3`; lists every valid key when the key is unknown.
Status set_value(RunSpec& spec, std::string_view key, std::string_view value);
std::vector<std::string> spec_keys();
// What keeps the spec from being trained, for a form that shows it at its place.
struct SpecProblem {
  std::string key;      // "train.lr"; a section, "model" or "data", where several keys do not fit together
  std::string message;  // one sentence that names the keys it is about
};
std::vector<SpecProblem> problems(const RunSpec& spec);
Status validate(const RunSpec& spec);  // the first of them
std::string spec_hash(const RunSpec& spec);  // hex; the name and the seed do not enter

struct SpecDifference {
  std::string key;
  std::vector<std::string> values;  // one per spec
};
// Only the keys on which the specs (canonical JSON) differ.
std::vector<SpecDifference> diff_specs(const std::vector<std::string>& spec_jsons);

}  // namespace rat
