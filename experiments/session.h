// The two worker threads of the window. TrainingSession works through a queue of runs; InspectSession loads stored
// runs (or a copy of the live weights) for traces and generation. Both take commands from any thread, never block the
// caller, and publish immutable snapshots.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/devices.h"
#include "core/sampler.h"
#include "core/trace/snapshot.h"
#include "experiments/trainer.h"
#include "kernels/base/cache_dtype.h"

namespace rat {

enum class SessionActivity { idle, preparing, training, evaluating, paused, stopping };
std::string_view activity_name(SessionActivity activity);

struct QueueItem {
  std::string run_id, name, layers;
};

struct TrainingStatus {
  SessionActivity activity = SessionActivity::idle;
  std::string run_id, run_name;
  RunSpec spec;
  int64_t step = 0, steps_total = 0;
  StepReport last;                        // newest step,
  std::string last_run_id;                // of this run, also when it has ended
  double elapsed_s = 0, remaining_s = 0;  // remaining: estimate, from the median of recent steps
  double tokens_per_s_median = 0, tokens_per_s_q1 = 0,
         tokens_per_s_q3 = 0;  // train, over the last 200 steps, warm-up excluded
  double step_ms_median = 0, step_ms_q1 = 0, step_ms_q3 = 0;
  std::vector<float> recent_step_ms;  // the last 200 steps, oldest first
  OpTimes op_ms_per_step;  // mean over the same steps; on a device each counts as the newest one timed op by op
  double probe_share = 0;             // probe time / training time since start
  double probe_budget = 0.02;
  int64_t peak_bytes = 0;  // of the process
  std::vector<QueueItem> queue;
  std::string message;  // one sentence for the status bar; empty: nothing to say
  bool message_is_error = false;
};

class TrainingSession {
 public:
  explicit TrainingSession(StoreWriter& store);
  ~TrainingSession();  // stops the run at a checkpoint, joins

  // Appends a run to the queue (recorded as queued) and starts the queue when idle.
  void enqueue(const RunSpec& spec, const std::string& sweep_id = "");
  void resume_run(const RunRow& run, int64_t steps = 0);
  void pause();
  void unpause();
  void step();      // one step, then paused
  void stop();      // the current run: checkpoint, state `stopped`; the queue goes on
  void stop_all();  // also empties the queue
  void remove_queued(const std::string& run_id);
  // What views want to see live; recorded between steps within the budget (share of training time).
  void set_probes(const ProbeRequest& request, int64_t tokens, double budget = 0.02);
  // Asks for a copy of the live weights; delivered to `receive` on the session thread between two steps.
  struct LiveWeights {
    std::string run_id;
    int64_t step = 0;
    RunSpec spec;
    std::vector<std::vector<float>> values;  // one per parameter, in order
  };
  void copy_weights(std::function<void(std::shared_ptr<const LiveWeights>)> receive);

  std::shared_ptr<const TrainingStatus> status() const;
  std::shared_ptr<const TraceSnapshot> trace() const;  // of the live run; empty tensors before the first

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A prompt is continued `samples` times, all at once; sample i has the seed + i.
struct GenerationConfig {
  SamplingConfig sampling;
  int64_t samples = 1;
  std::string dtype = "f32";  // of matrix products
  std::string device = "cpu";
  std::optional<kernels::CacheDtype> cache = {};  // of keys and values; nothing: as the layers compute
};

struct GenerationStatus {
  std::string run_id;
  int64_t step = 0;
  int64_t samples = 1, sample = 0;  // how many there are; the one that tokens and probabilities are of
  uint64_t seed = 1;                // of that sample
  std::string dtype = "f32";
  std::vector<int32_t> tokens;  // prompt and generated
  std::shared_ptr<const Tokenizer> tokenizer;  // text of the ids; null: numbers
  int64_t prompt_tokens = 0;
  bool running = false;
  std::vector<float> next_probabilities;  // (V) of the token to come, after temperature
  std::string device = "cpu";
  int64_t cache_bytes = 0;  // of all samples
  std::string cache_dtype;  // "f32", "bf16, f32": of the layers
  int64_t position = 0;     // of each
  double prefill_ms = 0;
  double prefill_tokens_per_s = 0, decode_tokens_per_s = 0;  // of all samples together
  std::string message;
  bool message_is_error = false;
};

struct InspectStatus {
  std::string run_id, run_name;  // what is loaded; empty: nothing
  int64_t step = 0;
  std::string checkpoint;  // file; empty: live weights
  bool busy = false;
  std::string message;
  bool message_is_error = false;
  std::vector<LayerConfig> trained_layers, layers;  // of the weights; as they are looked at now
  std::string layer_note;                           // what the difference means; empty: there is none
  std::vector<Device> devices;                      // on which it can generate here, the CPU first
};

class InspectSession {
 public:
  InspectSession();
  ~InspectSession();

  void open_run(const RunRow& run);  // its newest checkpoint
  void use_weights(std::shared_ptr<const TrainingSession::LiveWeights> weights);
  // Other settings of the layers on the same weights (see Model::set_layers); none: as trained. They stay while weights
  // of the same run and layers are loaded, and end with another run. What was generated belongs to the old settings
  // and is dropped.
  void set_layers(std::vector<LayerConfig> layers);
  // Tokens to look at: text typed by the user, or empty for the run's own validation text. Traces again on a change.
  void set_probes(const ProbeRequest& request, int64_t tokens, const std::string& text = "");
  // Starts over from the prompt (bytes). `count` tokens are generated, streaming; 1 at a time for stepping.
  void generate(const std::string& prompt, int64_t count, const GenerationConfig& config);
  void generate_more(int64_t count);
  void stop_generation();
  void show_sample(int64_t sample);  // of the generation there is: generation() and traces that follow it are of this one
  // While set, every generated token also publishes a trace over prompt + generation (generate view).
  void follow_generation(bool follow);

  std::shared_ptr<const InspectStatus> status() const;
  std::shared_ptr<const TraceSnapshot> trace() const;
  std::shared_ptr<const GenerationStatus> generation() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rat
