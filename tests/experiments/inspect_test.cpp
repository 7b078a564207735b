// Looking at stored and live runs: traces, generation, and errors as sentences.
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "experiments/generation.h"
#include "tests/experiments/session_fixture.h"

namespace rat {
namespace {

namespace fs = std::filesystem;

class Inspect : public Session {
 protected:
  RunRow trained(const std::string& layers, const std::string& kind = "text") {
    RunSpec spec = tiny_spec(text_, layers, 30);
    spec.data.kind = kind;
    if (kind == "mqar") spec.data.pairs = 3, spec.data.queries = 4, spec.model.vocab = 64;
    const std::size_t before = runs().size();
    session_->enqueue(spec);
    EXPECT_TRUE(wait_for([&] { return runs().size() == before + 1 && runs().front().state == RunState::finished; }))
        << status()->message;
    return runs().front();
  }
  InspectSession inspect_;
};

TEST_F(Inspect, OpensARunAndTracesItsValidationText) {
  const RunRow run = trained("rat:8,attention");
  inspect_.set_probes({{{Probe::state_v, 0}, {Probe::attention, 1}}}, 20);
  inspect_.open_run(run);
  ASSERT_TRUE(wait_for([&] { return inspect_.trace()->serial > 0; })) << inspect_.status()->message;
  const auto trace = inspect_.trace();
  EXPECT_EQ(trace->run_id, run.id);
  EXPECT_EQ(trace->step, 30);
  EXPECT_EQ(trace->token_count(), 20);
  ASSERT_NE(trace->find(Probe::attention, 1), nullptr);
  EXPECT_EQ(trace->find(Probe::attention, 1)->shape, (std::vector<int64_t>{2, 20, 20}));
  EXPECT_EQ(inspect_.status()->checkpoint, run.checkpoint);
  inspect_.set_probes({{{Probe::state_v, 0}}}, 20, "hello world");
  ASSERT_TRUE(wait_for([&] { return inspect_.trace()->source == "prompt"; }));
  EXPECT_EQ(inspect_.trace()->token_count(), 11);
}

// The chunk length turned on the same weights: other maps, a note that says so, and back to the same values as before.
TEST_F(Inspect, LayersAreChangedOnTheSameWeights) {
  const RunRow run = trained("rat:8,attention");
  inspect_.set_probes({{{Probe::attention, 0}}}, 32);
  inspect_.open_run(run);
  ASSERT_TRUE(wait_for([&] { return inspect_.trace()->serial > 0; })) << inspect_.status()->message;
  const auto before = inspect_.trace();
  EXPECT_EQ(before->find(Probe::attention, 0)->shape[2], 4);  // the three chunks that some token looks back on, and its own state
  EXPECT_EQ(inspect_.status()->layer_note, "");
  std::vector<LayerConfig> layers = inspect_.status()->trained_layers;
  layers[0].chunk = 4;
  inspect_.set_layers(layers);
  ASSERT_TRUE(wait_for([&] { return inspect_.trace()->find(Probe::attention, 0)->shape[2] == 8; }));
  EXPECT_EQ(inspect_.trace()->model.layers[0].chunk, 4);
  EXPECT_EQ(inspect_.status()->layers, layers);
  EXPECT_NE(inspect_.status()->layer_note.find("off-distribution"), std::string::npos);
  inspect_.set_layers({});
  ASSERT_TRUE(wait_for([&] { return inspect_.trace()->find(Probe::attention, 0)->shape[2] == 4; }));
  const auto after = inspect_.trace()->find(Probe::attention, 0)->values,
             as_before = before->find(Probe::attention, 0)->values;
  ASSERT_EQ(after.size(), as_before.size());
  for (std::size_t i = 0; i < after.size(); ++i)
    EXPECT_TRUE(after[i] == as_before[i] || (std::isnan(after[i]) && std::isnan(as_before[i]))) << i;
  layers[0].kind = "attention";  // needs other weights
  inspect_.set_layers(layers);
  ASSERT_TRUE(wait_for([&] { return inspect_.status()->message_is_error; }));
  EXPECT_EQ(inspect_.status()->layers, inspect_.status()->trained_layers);
}

TEST_F(Inspect, TheRunOpenedLastWins) {
  const RunRow a = trained("rat:8*2"), b = trained("rnn*2");
  inspect_.set_probes({{{Probe::gate, -1}}}, 16);
  for (int i = 0; i < 20; ++i) {
    inspect_.open_run(a);
    inspect_.open_run(b);
  }
  ASSERT_TRUE(wait_for([&] {
    return inspect_.status()->run_id == b.id && !inspect_.status()->busy && inspect_.trace()->run_id == b.id;
  }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(inspect_.status()->run_id, b.id);
  EXPECT_EQ(inspect_.trace()->run_id, b.id);
}

TEST_F(Inspect, MissingAndDamagedCheckpointsAreSentences) {
  RunRow run = trained("rat:8*2");
  const std::string good = run.checkpoint;
  run.checkpoint.clear();
  inspect_.open_run(run);
  ASSERT_TRUE(wait_for([&] { return inspect_.status()->message_is_error; }));
  EXPECT_NE(inspect_.status()->message.find("no complete checkpoint"), std::string::npos);
  run.checkpoint = good;
  fs::resize_file(good, fs::file_size(good) - 5);
  inspect_.open_run(run);
  ASSERT_TRUE(wait_for([&] { return inspect_.status()->message.find("safetensors") != std::string::npos; }))
      << inspect_.status()->message;
  EXPECT_TRUE(inspect_.status()->run_id.empty());
}

// A laptop without the data disk, a run from standard input: typed text and prompts need the weights alone.
TEST_F(Inspect, ARunWhoseDataAreGoneStillTakesTypedText) {
  RunRow run = trained("rat:8*2");
  fs::remove(text_);
  inspect_.set_probes({{{Probe::gate, 0}}}, 16);
  inspect_.open_run(run);
  ASSERT_TRUE(wait_for([&] { return inspect_.status()->message_is_error; }));
  EXPECT_NE(inspect_.status()->message.find("type a text instead"), std::string::npos) << inspect_.status()->message;
  EXPECT_EQ(inspect_.status()->run_id, run.id);
  inspect_.set_probes({{{Probe::gate, 0}}}, 16, "hello");
  ASSERT_TRUE(wait_for([&] { return inspect_.trace()->source == "prompt"; })) << inspect_.status()->message;
  EXPECT_EQ(inspect_.trace()->token_count(), 5);
  inspect_.generate("hello", 4, {});
  EXPECT_TRUE(wait_for([&] { return inspect_.generation()->tokens.size() == 9; })) << inspect_.generation()->message;

  RunSpec spec = *parse_spec(run.spec_json);
  spec.data.path = "-";  // must not wait for this process's standard input
  run.spec_json = to_json(spec);
  inspect_.set_probes({{{Probe::gate, 0}}}, 16, "other text");
  inspect_.open_run(run);
  ASSERT_TRUE(wait_for([&] { return inspect_.trace()->token_count() == 10; })) << inspect_.status()->message;
  inspect_.set_probes({{{Probe::gate, 0}}}, 16);
  ASSERT_TRUE(wait_for([&] { return inspect_.status()->message_is_error; }));
  EXPECT_NE(inspect_.status()->message.find("standard input"), std::string::npos) << inspect_.status()->message;
}

TEST_F(Inspect, GeneratesStreamsContinuesAndStops) {
  const RunRow run = trained("rat:8,swa:16");
  inspect_.open_run(run);
  GenerationConfig config;
  config.sampling.seed = 5;
  inspect_.generate("the quick", 40, config);
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->tokens.size() == 49 && !inspect_.generation()->running; }))
      << inspect_.generation()->message;
  const auto done = inspect_.generation();
  EXPECT_EQ(done->prompt_tokens, 9);
  EXPECT_EQ(done->position, 49);
  EXPECT_GT(done->decode_tokens_per_s, 0);
  EXPECT_GT(done->cache_bytes, 0);
  double sum = 0;
  for (const float p : done->next_probabilities) sum += p;
  EXPECT_NEAR(sum, 1, 1e-4);

  inspect_.generate_more(1);
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->tokens.size() == 50; }));
  // 40 tokens and 10 more are the 50 of one go: same seed, same cache.
  inspect_.generate_more(9);
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->tokens.size() == 59; }));
  const auto in_pieces = inspect_.generation()->tokens;
  inspect_.generate("the quick", 50, config);
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->tokens.size() == 59 && !inspect_.generation()->running; }));
  EXPECT_EQ(inspect_.generation()->tokens, in_pieces);

  inspect_.generate("the quick", 10'000'000, config);
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->running && inspect_.generation()->tokens.size() > 70; }));
  const auto start = Clock::now();
  inspect_.stop_generation();
  ASSERT_TRUE(wait_for([&] { return !inspect_.generation()->running; }));
  EXPECT_LT(ms_since(start), reaction_limit_ms);
  const std::size_t stopped_at = inspect_.generation()->tokens.size();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(inspect_.generation()->tokens.size(), stopped_at);

  inspect_.generate("", 5, config);
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->message_is_error; }));
  EXPECT_NE(inspect_.generation()->message.find("prompt is empty"), std::string::npos);
}

// What is drawn together is what each seed draws alone, and any of them can be looked at.
TEST_F(Inspect, SeveralSamplesAreTheSeedsOneByOne) {
  inspect_.open_run(trained("rat:8,attention"));
  const auto generated = [&](uint64_t seed, int64_t samples) {
    GenerationConfig config;
    config.sampling.seed = seed;
    config.samples = samples;
    inspect_.generate("the quick", 20, config);
    EXPECT_TRUE(wait_for([&] {
      const auto now = inspect_.generation();
      return now->seed == seed && now->samples == samples && now->tokens.size() == 29 && !now->running;
    })) << inspect_.generation()->message;
    return inspect_.generation();
  };
  std::vector<std::vector<int32_t>> alone;
  for (const uint64_t seed : {7, 8, 9}) alone.push_back(generated(seed, 1)->tokens);
  EXPECT_NE(alone[0], alone[1]);
  const int64_t one_cache = inspect_.generation()->cache_bytes;
  const auto first = generated(7, 3);
  EXPECT_EQ(first->sample, 0);
  EXPECT_EQ(first->tokens, alone[0]);
  EXPECT_EQ(first->cache_bytes, 3 * one_cache);
  EXPECT_EQ(first->position, 29);
  for (const int64_t sample : {2, 1, 0}) {
    inspect_.show_sample(sample);
    ASSERT_TRUE(wait_for([&] { return inspect_.generation()->sample == sample; }));
    EXPECT_EQ(inspect_.generation()->seed, 7u + static_cast<uint64_t>(sample));
    EXPECT_EQ(inspect_.generation()->tokens, alone[static_cast<std::size_t>(sample)]);
  }
  inspect_.show_sample(99);  // there are three
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->sample == 2; }));
  inspect_.generate_more(5);
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->tokens.size() == 34; }));
  EXPECT_EQ(inspect_.generation()->sample, 2);

  inspect_.set_probes({{{Probe::gate, 0}}}, 16);
  inspect_.follow_generation(true);
  ASSERT_TRUE(wait_for([&] { return inspect_.trace()->tokens == inspect_.generation()->tokens; }));
  inspect_.show_sample(1);
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->sample == 1; }));
  EXPECT_TRUE(wait_for([&] { return inspect_.trace()->tokens == inspect_.generation()->tokens; }))
      << "the trace follows the sample that is looked at";
  GenerationConfig none;
  none.samples = 0;
  inspect_.generate("the quick", 5, none);
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->message_is_error; }));
  EXPECT_NE(inspect_.generation()->message.find("0 samples"), std::string::npos) << inspect_.generation()->message;
}

// The dtype is that of the generation and of what follows it; what else is looked at stays f32.
TEST_F(Inspect, GeneratesInTheDtypeAskedFor) {
  inspect_.open_run(trained("rat:8,attention"));
  inspect_.set_probes({{{Probe::gate, 0}}}, 16);
  ASSERT_TRUE(wait_for([&] { return inspect_.trace()->dtype == "f32"; })) << inspect_.status()->message;
  ASSERT_FALSE(inspect_.status()->devices.empty());
  EXPECT_EQ(inspect_.status()->devices.front().name, "cpu");
  const std::vector<std::string> dtypes = inspect_.status()->devices.front().dtypes;
  ASSERT_FALSE(dtypes.empty());
  EXPECT_EQ(dtypes.front(), "f32");
  for (const std::string& dtype : dtypes) {
    GenerationConfig config;
    config.dtype = dtype;
    inspect_.follow_generation(true);
    inspect_.generate("the quick", 6, config);
    ASSERT_TRUE(wait_for([&] {
      return inspect_.generation()->dtype == dtype && inspect_.generation()->tokens.size() == 15 &&
             inspect_.trace()->token_count() == 15 && inspect_.trace()->dtype == dtype;
    })) << dtype << ": " << inspect_.generation()->message << inspect_.status()->message;
    inspect_.follow_generation(false);
    ASSERT_TRUE(wait_for([&] { return inspect_.trace()->source != "generation"; }));
    EXPECT_EQ(inspect_.trace()->dtype, "f32") << "after " << dtype;
  }
  GenerationConfig config;
  config.dtype = "f12";
  inspect_.generate("the quick", 6, config);
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->message_is_error; }));
  EXPECT_NE(inspect_.generation()->message.find("f12"), std::string::npos) << inspect_.generation()->message;
}

// On each device of this machine: the CPU's text, and back.
TEST_F(Inspect, GeneratesOnTheDeviceAskedFor) {
  inspect_.open_run(trained("rat:8,attention"));
  inspect_.set_layers({{.kind = "rat", .chunk = 4}, {.kind = "attention"}});
  GenerationConfig config;
  config.sampling.temperature = 0;
  const auto text_on = [&](const std::string& device) {
    config.device = device;
    inspect_.generate("the quick", 0, {});  // another one, so that the next is seen to be new
    EXPECT_TRUE(wait_for([&] { return inspect_.generation()->tokens.size() == 9; })) << inspect_.generation()->message;
    inspect_.generate("the quick", 6, config);
    EXPECT_TRUE(wait_for([&] { return inspect_.generation()->tokens.size() == 15; })) << inspect_.generation()->message;
    EXPECT_EQ(inspect_.generation()->device, device);
    EXPECT_EQ(inspect_.generation()->cache_dtype, "f32");
    EXPECT_EQ(inspect_.status()->layers[0].chunk, 4);
    return inspect_.generation()->tokens;
  };
  const auto want = text_on("cpu");
  for (const Device& device : inspect_.status()->devices) EXPECT_EQ(text_on(device.name), want) << device.name;
  for (const char* device : {"cuda", "tpu"}) {
    if (std::ranges::any_of(inspect_.status()->devices, [&](const Device& one) { return one.name == device; })) continue;
    config.device = device;
    inspect_.generate("the quick", 6, config);
    ASSERT_TRUE(wait_for([&] { return inspect_.generation()->message_is_error; })) << device;
    EXPECT_EQ(text_on("cpu"), want) << "the weights are still there";
  }
}

TEST_F(Inspect, ACacheThatTheDeviceDoesNotHaveIsRefused) {
  inspect_.open_run(trained("rat:8"));
  GenerationConfig config;
  config.cache = kernels::CacheDtype::fp8;
  inspect_.generate("the quick", 6, config);
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->message_is_error; }));
  EXPECT_NE(inspect_.generation()->message.find("a cache in fp8"), std::string::npos) << inspect_.generation()->message;
  inspect_.generate("the quick", 6, {});
  EXPECT_TRUE(wait_for([&] { return inspect_.generation()->tokens.size() == 15; })) << inspect_.generation()->message;
}

// What this process may still take, while this lives.
class AddressSpaceLimit {
 public:
  explicit AddressSpaceLimit(rlim_t more) {
    EXPECT_EQ(getrlimit(RLIMIT_AS, &before_), 0);
    int64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlimit limited{static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE)) + more, before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_AS, &limited), 0);
  }
  ~AddressSpaceLimit() { EXPECT_EQ(setrlimit(RLIMIT_AS, &before_), 0); }

 private:
  rlimit before_{};
};

// Memory that runs out in the middle of a generation, and where one would begin, ends it with a sentence. The text stays.
TEST_F(Inspect, FullMemoryEndsAGenerationAndNothingElse) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer's own memory cannot be limited";
#endif
  inspect_.open_run(trained("attention*2"));
  GenerationConfig config;
  config.samples = 3000;
  inspect_.generate("the quick", 4, config);
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->tokens.size() == 13 && !inspect_.generation()->running; }))
      << inspect_.generation()->message;
  {
    const AddressSpaceLimit limit(48 << 20);
    inspect_.generate_more(5000);
    ASSERT_TRUE(wait_for([&] { return inspect_.generation()->message_is_error; }));
    EXPECT_NE(inspect_.generation()->message.find("fewer tokens or samples"), std::string::npos);
    EXPECT_FALSE(inspect_.generation()->running);
    EXPECT_GE(inspect_.generation()->tokens.size(), 13u) << "the text is still there";
    config.samples = 60000;
    inspect_.generate(std::string(400, 'a'), 4, config);
    ASSERT_TRUE(wait_for([&] { return inspect_.generation()->message_is_error && inspect_.generation()->tokens.empty(); }))
        << inspect_.generation()->message;
    EXPECT_FALSE(inspect_.generation()->running);
  }
  config.samples = 1;
  inspect_.generate("the quick", 4, config);
  EXPECT_TRUE(wait_for([&] { return inspect_.generation()->tokens.size() == 13 && !inspect_.generation()->running; }))
      << inspect_.generation()->message;
}

// Half a token in the cache would spoil every later one.
TEST_F(Inspect, AfterATokenThatFailedThereIsNoOther) {
  ModelConfig model;
  model.vocab = 16, model.d_model = 16, model.heads = 2, model.groups = 1;
  model.layers = {{.kind = "swa", .window = 4}};
  auto decoder = Model::create(model, 1);
  ASSERT_TRUE(decoder) << decoder.error().message;
  auto generation = Generation::start(**decoder, {1, 2, 3}, {}, nullptr);
  ASSERT_TRUE(generation) << generation.error().message;
  ASSERT_TRUE((*generation)->next(**decoder));
  model.layers[0].window = 5;
  ASSERT_TRUE((*decoder)->set_layers(model.layers));
  EXPECT_FALSE((*generation)->next(**decoder));
  const Status again = (*generation)->next(**decoder);
  ASSERT_FALSE(again);
  EXPECT_NE(again.error().message.find("generate again"), std::string::npos) << again.error().message;
  EXPECT_EQ((*generation)->tokens(0).size(), 4u);
}

TEST_F(Inspect, TracesFollowTheGeneration) {
  inspect_.open_run(trained("rat:8*2"));
  inspect_.set_probes({{{Probe::gate, 0}}}, 16);
  inspect_.follow_generation(true);
  inspect_.generate("abc", 30, {});
  ASSERT_TRUE(
      wait_for([&] { return inspect_.trace()->source == "generation" && inspect_.trace()->token_count() == 33; }));
  EXPECT_EQ(inspect_.trace()->tokens, inspect_.generation()->tokens);
  inspect_.follow_generation(false);
  ASSERT_TRUE(wait_for([&] { return inspect_.trace()->source == "validation text"; }));
}

TEST_F(Inspect, ARunOfTheRecallTaskTakesTokenIds) {
  inspect_.open_run(trained("attention", "mqar"));
  inspect_.generate("hello", 2, {});
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->message_is_error; }));
  EXPECT_NE(inspect_.generation()->message.find("numbers"), std::string::npos);
  inspect_.generate("1 2, 3", 2, {});
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->tokens.size() == 5; })) << inspect_.generation()->message;
  inspect_.generate("1 2 64", 2, {});
  ASSERT_TRUE(wait_for([&] { return inspect_.generation()->message_is_error; }));
}

TEST_F(Inspect, LooksAtLiveWeights) {
  session_->enqueue(endless());
  ASSERT_TRUE(wait_for([&] { return status()->step > 3; }));
  inspect_.set_probes({{{Probe::gate, -1}}}, 16);
  session_->copy_weights([&](auto weights) { inspect_.use_weights(std::move(weights)); });
  ASSERT_TRUE(wait_for([&] { return inspect_.trace()->serial > 0; }));
  EXPECT_GE(inspect_.trace()->step, 3);
  EXPECT_TRUE(inspect_.status()->checkpoint.empty());
}

TEST_F(Inspect, CommandsFromManyThreadsAreSafe) {
  const RunRow run = trained("rat:8*2");
  session_->enqueue(endless());
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        switch ((i + t) % 8) {
          case 0:
            inspect_.open_run(run);
            break;
          case 1:
            inspect_.generate("abc", 20, {});
            break;
          case 2:
            inspect_.set_probes({{{Probe::gate, -1}}}, 8 + i % 5);
            break;
          case 3:
            session_->pause();
            break;
          case 4:
            session_->set_probes({{{Probe::gate, -1}}}, 8 + i % 5);
            break;
          case 5:
            session_->unpause();
            break;
          case 6:
            inspect_.stop_generation();
            break;
          case 7:
            session_->copy_weights([&](auto weights) { inspect_.use_weights(std::move(weights)); });
            break;
        }
        (void)session_->status()->step, (void)inspect_.status()->run_id, (void)inspect_.generation()->tokens.size();
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
    });
  threads.clear();
  session_->unpause();
  const int64_t step = status()->step;
  EXPECT_TRUE(wait_for([&] { return status()->step > step; }));
  session_.reset();  // before inspect_, whose callback it may still call
}

}  // namespace
}  // namespace rat
