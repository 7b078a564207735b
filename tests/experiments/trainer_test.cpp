// A training run: what it stores, that a resumed one cannot be told from one that never stopped, and what stops it.
#include "experiments/trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <set>

#include "core/io/checkpoint.h"
#include "core/io/safetensors.h"
#include "tests/experiments/tiny_run.h"

namespace rat {
namespace {

namespace fs = std::filesystem;

class Training : public ::testing::Test {
 protected:
  void SetUp() override {
    write_tiny_text(text_);
    auto opened = StoreWriter::open(folder_ / "runs.db");
    ASSERT_OK(opened);
    store_ = *std::move(opened);
  }
  std::unique_ptr<Trainer> start(const RunSpec& spec) {
    auto trainer = Trainer::start(spec, *store_);
    EXPECT_TRUE(trainer) << trainer.error().message;
    return trainer ? *std::move(trainer) : nullptr;
  }
  void train(Trainer& trainer, int64_t until) {
    while (trainer.step() < until) {
      const auto report = trainer.train_step();
      ASSERT_OK(report);
    }
  }
  RunRow row(const std::string& id) {
    EXPECT_OK(store_->flush());
    const auto row = StoreReader::open(store_->path())->run(id);
    EXPECT_TRUE(row) << row.error().message;
    return row ? *row : RunRow{};
  }
  std::vector<MetricPoint> series(const std::string& id, const std::string& metric) {
    EXPECT_OK(store_->flush());
    return *StoreReader::open(store_->path())->series(id, metric);
  }
  // Weights and moments of the newest checkpoint, by name.
  std::map<std::string, std::vector<float>> tensors(const std::string& id) {
    std::map<std::string, std::vector<float>> all;
    const std::string weights = row(id).checkpoint;
    for (std::string path : {weights, weights.substr(0, weights.size() - 12) + ".optimizer.safetensors"}) {
      const auto file = SafetensorsFile::open(path);
      EXPECT_TRUE(file) << file.error().message;
      for (const auto& [name, info] : file->tensors()) all[name] = *file->read_floats(name);
    }
    return all;
  }
  void expect_same_bits(const std::string& a, const std::string& b) {
    const auto left = tensors(a), right = tensors(b);
    ASSERT_EQ(left.size(), right.size());
    ASSERT_GT(left.size(), 3u);
    for (const auto& [name, values] : left) {
      ASSERT_EQ(values.size(), right.at(name).size()) << name;
      EXPECT_EQ(std::memcmp(values.data(), right.at(name).data(), values.size() * sizeof(float)), 0) << name;
    }
    for (const char* metric : {"loss", "val_loss", "grad_norm", "lr"}) {
      const auto x = series(a, metric), y = series(b, metric);
      ASSERT_EQ(x.size(), y.size()) << metric;
      for (std::size_t i = 0; i < x.size(); ++i) {
        EXPECT_EQ(x[i].step, y[i].step) << metric;
        EXPECT_EQ(std::bit_cast<uint64_t>(x[i].value), std::bit_cast<uint64_t>(y[i].value))
            << metric << " at step " << x[i].step;
      }
    }
  }

  TemporaryFolder folder_;
  fs::path text_ = folder_ / "text.txt";
  std::unique_ptr<StoreWriter> store_;
};

TEST_F(Training, StoresEveryNamedMetricAndLearns) {
  RunSpec spec = tiny_spec(text_, "rat:8,attention", 40);
  spec.train.probe_every = 20;
  auto trainer = start(spec);
  ASSERT_TRUE(trainer);
  EXPECT_EQ(row(trainer->run_id()).state, RunState::running);
  train(*trainer, 40);
  EXPECT_TRUE(trainer->done());
  ASSERT_OK(trainer->finish());
  const RunRow run = row(trainer->run_id());
  EXPECT_EQ(run.state, RunState::finished);
  EXPECT_EQ(run.steps_done, 40);
  EXPECT_EQ(run.layers, "rat:8,attention");
  EXPECT_EQ(run.device, "cpu");
  EXPECT_FALSE(run.data_hash.empty());
  EXPECT_FALSE(run.checkpoint.empty());
  for (const char* name : {"loss", "lr", "grad_norm", "tokens_per_s", "step_ms"})
    EXPECT_EQ(run.metrics.at(name).count, 40) << name;
  for (const char* name : {"op_ms/gemm", "op_ms/cross entropy", "val_loss", "val_accuracy"})
    EXPECT_EQ(run.metrics.at(name).count, 4) << name;
  for (const char* name : {"prefill_tokens_per_s", "decode_tokens_per_s", "cache_bytes", "peak_bytes"})
    EXPECT_GT(run.metrics.at(name).last, 0) << name;
  EXPECT_TRUE(run.metrics.contains("gate_half_life/0"));
  EXPECT_TRUE(run.metrics.contains("attention_entropy/1"));
  const auto loss = series(run.id, "loss");
  EXPECT_LT(loss.back().value, loss.front().value - 0.3);
  EXPECT_LT(run.metrics.at("val_loss").last, 5.5);
}

class Resumed : public Training, public ::testing::WithParamInterface<std::pair<const char*, int64_t>> {};

TEST_P(Resumed, EqualsUninterruptedBitForBit) {
  RunSpec spec = tiny_spec(text_, GetParam().first, 60);
  spec.train.accumulate = GetParam().second;
  auto straight = start(spec);
  ASSERT_TRUE(straight);
  train(*straight, 60);
  ASSERT_OK(straight->finish());

  auto first = start(spec);
  ASSERT_TRUE(first);
  train(*first, 30);
  ASSERT_OK(first->stop_run());
  const std::string id = first->run_id();
  EXPECT_EQ(row(id).state, RunState::stopped);
  first.reset();
  auto second = Trainer::resume(row(id), *store_);
  ASSERT_OK(second);
  EXPECT_EQ((*second)->step(), 30);
  train(**second, 60);
  ASSERT_OK((*second)->finish());
  expect_same_bits(straight->run_id(), id);
}

INSTANTIATE_TEST_SUITE_P(Mixers, Resumed,
                         ::testing::Values(std::pair{"rat:8*2", 1}, std::pair{"attention*2", 1}, std::pair{"rnn*2", 1},
                                           std::pair{"rat:5,swa:7", 2}, std::pair{"ratplus:4/w2,linear", 1},
                                           std::pair{"rattention:6,attention/nope", 1}));

// Dense and dilated batches in turn: what a step trains depends on its number alone.
TEST_F(Training, AlternatingDilationsResumeBitForBit) {
  RunSpec spec = tiny_spec(text_, "ratplus*2", 31);
  spec.train.dilations = {1, 8, 3};
  auto straight = start(spec);
  ASSERT_TRUE(straight);
  train(*straight, 31);
  EXPECT_EQ(straight->model().config().layers, spec.model.layers) << "between steps the layers are those of the spec";
  ASSERT_OK(straight->finish());
  auto first = start(spec);
  train(*first, 16);  // not a multiple of the three dilations
  ASSERT_OK(first->stop_run());
  const std::string id = first->run_id();
  first.reset();
  auto second = Trainer::resume(row(id), *store_);
  ASSERT_OK(second);
  train(**second, 31);
  ASSERT_OK((*second)->finish());
  expect_same_bits(straight->run_id(), id);

  RunSpec dense = spec;
  dense.train.dilations = {};
  auto other = start(dense);
  train(*other, 2);
  const auto dilated_losses = series(id, "loss"), dense_losses = series(other->run_id(), "loss");
  EXPECT_EQ(dense_losses[0].value, dilated_losses[0].value) << "the first step is dense in both";
  EXPECT_NE(dense_losses[1].value, dilated_losses[1].value);
}

TEST_F(Training, AKilledRunContinuesFromItsCheckpointAndForgetsWhatCameAfter) {
  RunSpec spec = tiny_spec(text_, "rat:8*2", 50);
  spec.train.checkpoint_every = 20;
  auto straight = start(spec);
  train(*straight, 50);
  ASSERT_OK(straight->finish());
  auto killed = start(spec);
  train(*killed, 37);
  const std::string id = killed->run_id();
  killed.reset();  // as far as the checkpoint goes the same as a kill: nothing is saved
  EXPECT_EQ(series(id, "loss").size(), 37u);
  auto resumed = Trainer::resume(row(id), *store_);
  ASSERT_OK(resumed);
  EXPECT_EQ((*resumed)->step(), 20);
  EXPECT_EQ(series(id, "loss").size(), 20u);
  train(**resumed, 50);
  ASSERT_OK((*resumed)->finish());
  expect_same_bits(straight->run_id(), id);
}

TEST_F(Training, ADamagedCheckpointFallsBackToTheOneBefore) {
  RunSpec spec = tiny_spec(text_, "rnn", 30);
  spec.train.checkpoint_every = 10;
  auto trainer = start(spec);
  train(*trainer, 25);
  ASSERT_OK(trainer->checkpoint());
  const std::string id = trainer->run_id();
  trainer.reset();
  const fs::path newest = row(id).checkpoint;
  ASSERT_EQ(newest.filename(), "step-00000025.safetensors");
  fs::resize_file(newest, fs::file_size(newest) / 2);
  auto resumed = Trainer::resume(row(id), *store_);
  ASSERT_OK(resumed);
  EXPECT_EQ((*resumed)->step(), 20);
  EXPECT_NE((*resumed)->notice().find("step 20"), std::string::npos) << (*resumed)->notice();
}

TEST_F(Training, KeepsTheLastThreeCheckpointsAndTheFinalOne) {
  RunSpec spec = tiny_spec(text_, "rnn", 32);
  spec.train.checkpoint_every = 5;
  auto trainer = start(spec);
  train(*trainer, 32);
  ASSERT_OK(trainer->finish());
  std::vector<std::string> names;
  for (const fs::path& path : list_checkpoints(store_->run_folder(trainer->run_id())))
    names.push_back(path.filename().string());
  EXPECT_EQ(names, (std::vector<std::string>{"step-00000020.safetensors", "step-00000025.safetensors",
                                             "step-00000030.safetensors", "step-00000032.safetensors"}));
  EXPECT_OK(StoreReader::open(store_->path())->check());
}

TEST_F(Training, AccumulationEqualsOneBatchUpToRounding) {
  RunSpec spec = tiny_spec(text_, "rat:8*2", 1);
  spec.data.kind = "mqar";  // few targets, at different places: a wrong weighting shows
  spec.data.pairs = 3, spec.data.queries = 4;
  spec.model.vocab = 64;
  auto whole = start(spec);
  spec.train.accumulate = 4;
  auto split = start(spec);
  ASSERT_TRUE(whole && split);
  const auto a = whole->train_step(), b = split->train_step();
  ASSERT_OK(a);
  ASSERT_OK(b);
  // Sums of 16 rounded terms in another order: a few times 16 u relative, u = 6e-8.
  EXPECT_NEAR(a->loss, b->loss, 1e-5 * a->loss);
  EXPECT_NEAR(a->grad_norm, b->grad_norm, 1e-4 * a->grad_norm);
}

TEST_F(Training, AStoppedStepIsUndone) {
  const RunSpec spec = tiny_spec(text_, "rat:8*2", 10);
  auto plain = start(spec), interrupted = start(spec);
  for (int i = 0; i < 10; ++i) {
    StopFlag stop;
    stop.request();
    const auto cancelled = interrupted->train_step(&stop);
    ASSERT_FALSE(cancelled);
    EXPECT_EQ(cancelled.error().code, ErrorCode::cancelled);
    ASSERT_OK(interrupted->train_step());
    ASSERT_OK(plain->train_step());
  }
  StopFlag stop;
  stop.request();
  EXPECT_FALSE(interrupted->finish(&stop));
  ASSERT_OK(interrupted->finish());
  ASSERT_OK(plain->finish());
  expect_same_bits(plain->run_id(), interrupted->run_id());
}

TEST_F(Training, RefusesWhatThisBuildCannotDo) {
  RunSpec spec = tiny_spec(text_);
  spec.device = "cuda";
  auto refused = Trainer::start(spec, *store_);
  if (refused) GTEST_SKIP() << "this machine has the device that others refuse";
  // Either the build has no CUDA or the machine no GPU; both sentences name the way out or what there is.
  EXPECT_NE(refused.error().message.find("cpu"), std::string::npos) << refused.error().message;
  spec.device = "cpu";
  spec.train.dtype = "f16";
  EXPECT_FALSE(Trainer::start(spec, *store_));
  EXPECT_TRUE(StoreReader::open(store_->path())->runs()->empty());
}

TEST_F(Training, TrainsInBf16WhereTheCpuCanAndSaysSo) {
  RunSpec spec = tiny_spec(text_);
  spec.train.dtype = "bf16";
  auto trainer = Trainer::start(spec, *store_);
  if (!kernels::cpu_supports(kernels::Dtype::bf16)) {
    ASSERT_FALSE(trainer);
    EXPECT_NE(trainer.error().message.find("use dtype f32"), std::string::npos) << trainer.error().message;
    return;
  }
  ASSERT_TRUE(trainer) << trainer.error().message;
  const auto report = (*trainer)->train_step();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(std::isfinite(report->loss));
  EXPECT_EQ(row((*trainer)->run_id()).dtype, "bf16");
  const auto trace = (*trainer)->trace({}, 8);
  ASSERT_TRUE(trace) << trace.error().message;
  EXPECT_EQ(trace->dtype, "bf16");
  EXPECT_NE(trace->kernel_path.find("bf16"), std::string::npos) << trace->kernel_path;
}

TEST_F(Training, AQueuedRunWithoutDataFailsWithTheReason) {
  const RunSpec spec = tiny_spec(folder_ / "absent.txt");
  NewRun queued = new_run("queued", RunState::queued);
  queued.spec_json = to_json(spec);
  const std::string id = *store_->create_run(queued);
  EXPECT_FALSE(Trainer::start(spec, *store_, id));
  EXPECT_EQ(row(id).state, RunState::failed);
  EXPECT_NE(row(id).error.find("absent.txt"), std::string::npos) << row(id).error;
}

TEST_F(Training, TenNonFiniteStepsInARowFailTheRun) {
  RunSpec spec = tiny_spec(text_, "rnn", 30);
  auto trainer = start(spec);
  train(*trainer, 3);
  Parameter& weight = trainer->model().parameters().front();
  const float kept = weight.value[0];
  const std::vector<float> all(weight.value.begin(), weight.value.end());
  std::ranges::fill(weight.value, std::nanf(""));
  for (int i = 0; i < 2; ++i) {
    const auto report = trainer->train_step();
    ASSERT_OK(report);
    EXPECT_TRUE(report->skipped);
  }
  std::ranges::copy(all, weight.value.begin());  // healthy again: the count starts over
  EXPECT_EQ(weight.value[0], kept);
  ASSERT_OK(trainer->train_step());
  std::ranges::fill(weight.value, std::nanf(""));
  int skipped = 0;
  Result<StepReport> report = trainer->train_step();
  for (; report; report = trainer->train_step()) ASSERT_LT(++skipped, 10);
  EXPECT_EQ(skipped, 9);
  EXPECT_NE(report.error().message.find("not finite"), std::string::npos);
  EXPECT_EQ(row(trainer->run_id()).state, RunState::failed);
  EXPECT_TRUE(std::isnan(row(trainer->run_id()).metrics.at("loss").last));
}

TEST_F(Training, ChangedDataIsNotContinuedAsIfItHadNot) {
  auto trainer = start(tiny_spec(text_));
  train(*trainer, 5);
  ASSERT_OK(trainer->stop_run());
  write_bytes(text_, file_bytes(text_) + "one more line\n");
  const auto resumed = Trainer::resume(row(trainer->run_id()), *store_);
  ASSERT_FALSE(resumed);
  EXPECT_NE(resumed.error().message.find("changed"), std::string::npos) << resumed.error().message;
  EXPECT_EQ(row(trainer->run_id()).state, RunState::stopped);
}

TEST_F(Training, AFinishedRunIsExtendedOnlyByMoreSteps) {
  auto trainer = start(tiny_spec(text_, "rnn", 5));
  train(*trainer, 5);
  ASSERT_OK(trainer->finish());
  const std::string id = trainer->run_id();
  trainer.reset();
  EXPECT_FALSE(Trainer::resume(row(id), *store_));
  EXPECT_EQ(row(id).state, RunState::finished);
  auto extended = Trainer::resume(row(id), *store_, 8);
  ASSERT_OK(extended);
  EXPECT_EQ(row(id).steps_total, 8);
  train(**extended, 8);
  ASSERT_OK((*extended)->finish());
  EXPECT_EQ(parse_spec(row(id).spec_json)->train.steps, 8);
  EXPECT_FALSE(Trainer::resume(row(id), *store_, 8));
}

// A file where the checkpoint folder should be stands for any disk that refuses: works for root too.
TEST_F(Training, AFailedCheckpointWarnsAndTrainingGoesOn) {
  RunSpec spec = tiny_spec(text_, "rnn", 20);
  spec.train.checkpoint_every = 5;
  auto trainer = start(spec);
  fs::create_directories(store_->run_folder("x").parent_path());
  write_bytes(store_->run_folder(trainer->run_id()), "in the way");
  std::set<std::string> warnings;
  while (!trainer->done()) {
    const auto report = trainer->train_step();
    ASSERT_OK(report);
    warnings.insert(report->warning);
  }
  EXPECT_EQ(warnings.size(), 2u);  // none before step 5, then the reason
  EXPECT_EQ(row(trainer->run_id()).state, RunState::running);
  fs::remove(store_->run_folder(trainer->run_id()));
  ASSERT_OK(trainer->finish());
  EXPECT_FALSE(row(trainer->run_id()).checkpoint.empty());
}

}  // namespace
}  // namespace rat
