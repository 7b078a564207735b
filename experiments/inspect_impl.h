// What the thread should do is a small set of wishes under one lock: which weights, which trace, which generation. The
// newest wish of a kind is the only one; the thread works on them one piece at a time (load, then trace, then one
// token), and a new wish cancels the piece it makes pointless.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "experiments/generation.h"
#include "experiments/step_history.h"
#include "experiments/trainer_impl.h"

namespace rat {
using InspectClock = std::chrono::steady_clock;

// What InspectSession was asked for and has not done yet.
struct InspectSource {
  std::optional<RunRow> run;
  std::shared_ptr<const TrainingSession::LiveWeights> weights;
};

struct InspectPrompt {
  std::string text;
  int64_t count = 0;
  GenerationConfig config;
};

struct InspectWishes {
  bool quit = false;
  std::optional<InspectSource> source;
  bool trace = false;
  ProbeRequest request;
  int64_t tokens = 256;
  std::string text;
  bool follow = false;
  std::optional<InspectPrompt> prompt;
  int64_t more = 0;  // tokens to add to the generation there is
  bool stop_generation = false;
  std::optional<int64_t> sample;                   // of the generation, to look at
  std::optional<std::vector<LayerConfig>> layers;  // empty: as trained
};

struct InspectSession::Impl {
  Impl() : thread([this] { loop(); }) {}
  ~Impl() {
    wish([](InspectWishes& wishes) { wishes.quit = true; }, {&load_stop, &trace_stop, &generation_stop});
    thread.join();
  }

  template <class Change>
  void wish(Change&& change, std::initializer_list<StopFlag*> cancels = {}) {
    {
      const std::lock_guard lock(mutex);
      change(wishes);
      for (StopFlag* flag : cancels) flag->request();
    }
    wake.notify_one();
  }

  void loop();
  void turn();
  bool take_stop();
  std::optional<InspectSource> take_source();
  void load(const InspectSource& source);
  Status load_weights_of(const InspectSource& source, const RunSpec& spec);
  Status move_to(const std::string& wanted);
  void open_data(const RunSpec& spec);
  std::optional<std::vector<LayerConfig>> take_layers();
  void change_layers(std::vector<LayerConfig> layers);
  void drop_generation();
  void update_trace();
  Result<TraceSnapshot> compute_trace();
  Result<std::vector<int32_t>> trace_tokens(std::string& source);
  Result<std::vector<int32_t>> typed_tokens(const std::string& typed) const;
  bool take_prompt();
  void start_generation(const InspectPrompt& prompt);
  bool take_sample();
  void generate_one();
  void follow_with_trace(bool last);
  void publish_generation(const std::string& message = "", bool is_error = false);
  void publish_status(const std::string& message = "", bool is_error = false, bool busy = false);

  // Session thread only.
  std::unique_ptr<Model> model;
  ModelConfig model_config;
  std::string device = "cpu";  // of the model
  std::unique_ptr<DataSource> data;
  std::string data_key;      // what `data` was opened for
  std::string data_problem;  // why there is none
  std::string run_id, run_name, checkpoint;
  std::vector<LayerConfig> chosen_layers;  // instead of model_config's; empty: none
  int64_t step = 0;
  std::shared_ptr<const Tokenizer> tokenizer;  // of the run's ids; null: numbers, or see tokenizer_problem
  std::string tokenizer_problem;               // why there is none where there should be; empty: fine
  ProbeRequest request;
  int64_t probe_tokens = 256;
  std::string text;
  bool follow = false;
  std::unique_ptr<Generation> generation;
  int64_t remaining = 0;
  int64_t shown_sample = 0;
  std::vector<Device> devices;  // that can be used
  InspectClock::time_point generation_published{}, followed_at{};
  double follow_cost_ms = 0;

  // Shared.
  std::mutex mutex;
  std::condition_variable wake;
  InspectWishes wishes;
  StopFlag load_stop, trace_stop, generation_stop;
  Slot<InspectStatus> status;
  Slot<TraceSnapshot> trace;
  Slot<GenerationStatus> generation_status;
  std::thread thread;  // last: starts when everything else is ready
};

}  // namespace rat
