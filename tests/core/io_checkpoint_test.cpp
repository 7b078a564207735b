// Checkpoints: everything comes back bit for bit, wrong files change nothing, and kill -9 at any moment leaves the
// newest complete checkpoint loadable.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>
#include <utility>

#include "core/io/checkpoint.h"
#include "core/io/safetensors.h"
#include "tests/core/io_temp_folder.h"

namespace rat {
namespace {

using test::TempFolder;
using testing::HasSubstr;

ModelConfig small_config(int64_t d_model = 16) {
  ModelConfig config;
  config.vocab = 11;
  config.d_model = d_model;
  config.heads = 2;
  config.groups = 1;
  config.layers = {{.kind = "rat", .chunk = 4, .window = 8}, {.kind = "swa", .chunk = 4, .window = 3}};
  return config;
}

std::unique_ptr<Model> make_model(const ModelConfig& config, uint64_t seed) {
  auto model = Model::create(config, seed);
  EXPECT_TRUE(model) << (model ? "" : model.error().message);
  return *std::move(model);
}

std::vector<std::vector<float>> values_of(Model& model) {
  std::vector<std::vector<float>> values;
  for (const Parameter& parameter : model.parameters())
    values.emplace_back(parameter.value.begin(), parameter.value.end());
  return values;
}

// Moments that differ everywhere, so that a swap of two would show.
void fill_moments(AdamW& optimizer, std::size_t parameters, float start) {
  for (std::size_t i = 0; i < parameters; ++i) {
    for (float& value : optimizer.first_moment(i)) value = start += 0.25f;
    for (float& value : optimizer.second_moment(i)) value = start += 0.5f;
  }
}

TEST(Checkpoint, RoundTripIsBitExact) {
  const TempFolder folder;
  const auto model = make_model(small_config(), 1);
  AdamW optimizer(model->parameters(), {});
  fill_moments(optimizer, model->parameters().size(), 1.0f);
  optimizer.set_step_count(499);
  const CheckpointMeta meta{
      .step = 500, .run_id = "r1", .spec_json = R"({"name":"é"})", .extra = {{"best", "1.5"}, {"step", "mine"}}};
  const auto path = save_checkpoint(folder / "deep/er", *model, optimizer, meta);
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_EQ(path->filename(), "step-00000500.safetensors");

  const auto other = make_model(small_config(), 2);
  AdamW restored(other->parameters(), {});
  ASSERT_NE(values_of(*other), values_of(*model));
  const auto loaded = load_checkpoint(*path, *other, restored);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(values_of(*other), values_of(*model));
  for (std::size_t i = 0; i < model->parameters().size(); ++i) {
    EXPECT_TRUE(std::ranges::equal(optimizer.first_moment(i), restored.first_moment(i)));
    EXPECT_TRUE(std::ranges::equal(optimizer.second_moment(i), restored.second_moment(i)));
  }
  EXPECT_EQ(restored.step_count(), 499);
  EXPECT_EQ(loaded->step, 500);
  EXPECT_EQ(loaded->run_id, "r1");
  EXPECT_EQ(loaded->spec_json, meta.spec_json);
  EXPECT_EQ(loaded->extra, meta.extra);
  const auto read = read_checkpoint_meta(*path);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->extra, meta.extra);
}

TEST(Checkpoint, AllDifferencesAreListedAndNothingChanges) {
  const TempFolder folder;
  const auto model = make_model(small_config(), 1);
  AdamW optimizer(model->parameters(), {});
  const auto path =
      save_checkpoint(folder.path(), *model, optimizer, {.step = 1, .run_id = "r", .spec_json = "{}", .extra = {}});
  ASSERT_TRUE(path);

  // One tensor missing, one with another shape, one too many; the rest is fine.
  std::vector<TensorToWrite> tensors;
  const std::vector<float> extra(3);
  for (const Parameter& parameter : std::as_const(*model).parameters())
    tensors.push_back({parameter.name, parameter.shape, parameter.value, {}});
  const std::string missing = tensors.front().name;
  tensors.front() = {"stranger", {3}, extra, {}};
  ASSERT_EQ(tensors.back().shape.size(), 2u);
  std::swap(tensors.back().shape[0], tensors.back().shape[1]);
  ASSERT_TRUE(write_safetensors(folder / "wrong", tensors, {}));

  const auto target = make_model(small_config(), 2);
  const auto before = values_of(*target);
  const Status status = load_weights(folder / "wrong", *target);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message,
              testing::AllOf(HasSubstr("3 differences"), HasSubstr(missing + "' is missing"),
                             HasSubstr("'stranger' [3] is not part"),
                             HasSubstr("'" + tensors.back().name + "' is [16, 11] instead of [11, 16]")));
  EXPECT_EQ(values_of(*target), before);

  const auto wide = make_model(small_config(32), 1);
  const auto wide_before = values_of(*wide);
  AdamW wide_optimizer(wide->parameters(), {});
  EXPECT_FALSE(load_weights(*path, *wide));
  EXPECT_FALSE(load_checkpoint(*path, *wide, wide_optimizer));
  EXPECT_EQ(values_of(*wide), wide_before);

  ASSERT_TRUE(load_weights(*path, *target));
  EXPECT_EQ(values_of(*target), values_of(*model));
}

// A checkpoint of small_config in `folder`; the path of its weights file.
std::filesystem::path save_one(const TempFolder& folder, Model& model) {
  AdamW optimizer(model.parameters(), {});
  fill_moments(optimizer, model.parameters().size(), 1.0f);
  auto path = save_checkpoint(folder.path(), model, optimizer, {7, "run", "{}", {}});
  EXPECT_TRUE(path) << (path ? "" : path.error().message);
  return *path;
}

TEST(Checkpoint, AFlippedBitInEitherFileIsNoticedAndChangesNothing) {
  const TempFolder folder;
  const auto model = make_model(small_config(), 1), other = make_model(small_config(), 2);
  const auto weights = save_one(folder, *model);
  AdamW optimizer(other->parameters(), {});
  const auto before = values_of(*other);
  const auto moments = weights.parent_path() / "step-00000007.optimizer.safetensors";
  for (const auto& path : {weights, moments}) {
    const std::string good = test::read_plain(path);
    for (const std::size_t from_end : {std::size_t{1}, std::size_t{4}, std::size_t{1000}}) {
      std::string bad = good;
      bad[bad.size() - from_end] ^= 1;
      test::write_plain(path, bad);
      const auto loaded = load_checkpoint(weights, *other, optimizer);
      ASSERT_FALSE(loaded);
      EXPECT_EQ(loaded.error().code, ErrorCode::corrupt_data);
      EXPECT_THAT(loaded.error().message, HasSubstr(path.filename().string() + " is damaged"));
      EXPECT_EQ(values_of(*other), before);
    }
    test::write_plain(path, good);
  }
  EXPECT_TRUE(load_checkpoint(weights, *other, optimizer));
  EXPECT_EQ(values_of(*other), values_of(*model));
}

TEST(Checkpoint, FilesFromBeforeTheChecksumAreAccepted) {
  const TempFolder folder;
  const auto model = make_model(small_config(), 1), other = make_model(small_config(), 2);
  const auto weights = save_one(folder, *model);
  std::string bytes = test::read_plain(weights);
  const std::size_t at = bytes.find("xxh3_64");
  ASSERT_NE(at, std::string::npos);
  bytes.replace(at, 7, "unknown");  // the same length: the header keeps its size
  bytes.back() ^= 1;                // which nothing can notice then
  test::write_plain(weights, bytes);
  const Status loaded = load_weights(weights, *other);
  EXPECT_TRUE(loaded) << loaded.error().message;
}

TEST(Checkpoint, OnlyCompleteMatchingPairsAreListed) {
  const TempFolder folder;
  const auto model = make_model(small_config(), 1);
  AdamW optimizer(model->parameters(), {});
  std::vector<std::filesystem::path> saved;
  for (const int64_t step : {5, 40, 300, 20, 123456789}) {
    const auto path = save_checkpoint(folder.path(), *model, optimizer,
                                      {.step = step, .run_id = "r", .spec_json = "{}", .extra = {}});
    ASSERT_TRUE(path);
    saved.push_back(*path);
  }
  EXPECT_EQ(list_checkpoints(folder.path()), (std::vector{saved[0], saved[3], saved[1], saved[2], saved[4]}));
  std::filesystem::remove(folder / "step-00000020.optimizer.safetensors");  // half a pair
  std::filesystem::resize_file(folder / "step-00000300.safetensors", 100);  // torn
  std::filesystem::copy_file(folder / "step-00000005.optimizer.safetensors",
                             folder / "step-00000040.optimizer.safetensors",
                             std::filesystem::copy_options::overwrite_existing);  // of another step
  test::write_plain(folder / "step-x.safetensors", "");
  test::write_plain(folder / "notes.txt", "");
  EXPECT_EQ(list_checkpoints(folder.path()), (std::vector{saved[0], saved[4]}));
  const auto mismatched = load_checkpoint(saved[1], *model, optimizer);
  ASSERT_FALSE(mismatched);
  EXPECT_THAT(mismatched.error().message, HasSubstr("do not belong together"));
  EXPECT_TRUE(list_checkpoints(folder / "none").empty());
}

// A child saves checkpoint after checkpoint and is killed at a random moment, 50 times over the same folder.
TEST(Checkpoint, KillDuringSavingAlwaysLeavesTheNewestCompleteOneLoadable) {
  const TempFolder folder;
  const ModelConfig config = small_config(64);
  const auto model = make_model(config, 1);
  AdamW optimizer(model->parameters(), {});
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(
      save_checkpoint(folder.path(), *model, optimizer, {.step = 0, .run_id = "r", .spec_json = "{}", .extra = {}}));
  const auto one_save = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  const int64_t longest = std::max<int64_t>(20'000, 4 * one_save.count());  // slow disks and sanitizers save too
  std::mt19937 random(7);
  int64_t newest = 0;
  for (int round = 0; round < 50; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int64_t step = newest + 1;; ++step) {
        for (Parameter& parameter : model->parameters()) std::ranges::fill(parameter.value, static_cast<float>(step));
        if (!save_checkpoint(folder.path(), *model, optimizer,
                             {.step = step, .run_id = "r", .spec_json = "{}", .extra = {}}))
          ::_exit(1);
        if (step > 3) std::filesystem::remove(folder / fmt::format("step-{:08}.safetensors", step - 3));
        if (step > 3) std::filesystem::remove(folder / fmt::format("step-{:08}.optimizer.safetensors", step - 3));
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(std::uniform_int_distribution<int64_t>(500, longest)(random)));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child failed to save";

    const auto checkpoints = list_checkpoints(folder.path());
    ASSERT_FALSE(checkpoints.empty());
    const auto meta = load_checkpoint(checkpoints.back(), *model, optimizer);
    ASSERT_TRUE(meta) << meta.error().message;
    ASSERT_GE(meta->step, newest);
    newest = meta->step;
    for (const Parameter& parameter : model->parameters())
      ASSERT_TRUE(newest == 0 || std::ranges::all_of(parameter.value,
                                                     [&](float value) { return value == static_cast<float>(newest); }));
    for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
      ASSERT_THAT(entry.path().string(), testing::Not(HasSubstr(".rat-tmp")));
  }
  EXPECT_GT(newest, 10) << "the children were killed before they saved anything";
}

}  // namespace
}  // namespace rat
