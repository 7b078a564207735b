#include "experiments/sweep.h"

#include <gtest/gtest.h>

#include "tests/experiments/tiny_run.h"

namespace rat {
namespace {

constexpr const char* two_by_two = R"({"name": "s", "question": "q?", "base": {"model": {"d_model": 32}},
  "grid": {"model.layers": ["rat:8*2", "rnn*2"], "train.seed": [1, 2]}})";

std::string error_of(const std::string& json) {
  const auto sweep = parse_sweep(json);
  if (!sweep) return sweep.error().message;
  const auto specs = expand(*sweep);
  return specs ? "(accepted)" : specs.error().message;
}

TEST(Sweep, ExpandsTheGridInOrder) {
  const auto sweep = parse_sweep(two_by_two);
  ASSERT_OK(sweep);
  EXPECT_EQ(sweep->question, "q?");
  const auto specs = expand(*sweep);
  ASSERT_OK(specs);
  std::vector<std::string> names;
  for (const RunSpec& spec : *specs) names.push_back(spec.name);
  EXPECT_EQ(names,
            (std::vector<std::string>{"s model.layers=rat:8*2 train.seed=1", "s model.layers=rat:8*2 train.seed=2",
                                      "s model.layers=rnn*2 train.seed=1", "s model.layers=rnn*2 train.seed=2"}));
  EXPECT_EQ((*specs)[3].train.seed, 2u);
  EXPECT_EQ((*specs)[3].model.layers[1].kind, "rnn");
  EXPECT_EQ((*specs)[0].model.d_model, 32);
}

TEST(Sweep, RefusesInOneSentence) {
  for (const auto& [json, part] : std::vector<std::pair<std::string, std::string>>{
           {R"({"grid": {}})", "needs a \"name\""},
           {R"({"name": "s", "grd": {}})", "did you mean 'grid'"},
           {R"({"name": "s", "grid": {"train.lrr": [1]}})", "did you mean 'train.lr'"},
           {R"({"name": "s", "grid": {"train.lr": []}})", "at least one value"},
           {R"({"name": "s", "grid": {"train.lr": [1, 1]}})", "twice"},
           {R"({"name": "s", "grid": {"train.lr": ["x"]}})", "train.lr must be a number"},
           {R"({"name": "s", "grid": {"train.accumulate": [3]}})", "must divide"},
           {R"({"name": "s", "base": {"x": 1}})", "base: 'x'"},
           {R"([])", "JSON object"},
           {R"({)", "not valid JSON"}}) {
    EXPECT_NE(error_of(json).find(part), std::string::npos) << json << " -> " << error_of(json);
  }
  std::string big = R"({"name": "s", "grid": {"train.seed": [0)";
  for (int i = 1; i < 200; ++i) big += fmt::format(",{}", i);
  big += R"(], "train.warmup": [0)";
  for (int i = 1; i < 200; ++i) big += fmt::format(",{}", i);
  EXPECT_NE(error_of(big + "]}}").find("more than"), std::string::npos);
}

TEST(Sweep, PlanSkipsFinishedAndResumesStopped) {
  TemporaryFolder folder;
  auto writer = StoreWriter::open(folder / "runs.db");
  ASSERT_OK(writer);
  const auto sweep = parse_sweep(two_by_two);
  const std::vector<RunSpec> specs = *expand(*sweep);
  const auto record = [&](const RunSpec& spec, RunState state, bool checkpoint) {
    NewRun run = new_run(spec.name);
    run.spec_hash = spec_hash(spec);
    run.seed = spec.train.seed;
    const std::string id = *(*writer)->create_run(run);
    if (checkpoint) {
      std::filesystem::create_directories((*writer)->run_folder(id));
      const auto weights = (*writer)->run_folder(id) / "step-00000001.safetensors";
      write_bytes(weights, "w");
      write_bytes((*writer)->run_folder(id) / "step-00000001.optimizer.safetensors", "o");
      EXPECT_OK((*writer)->record_checkpoint(id, 1, weights));
    }
    EXPECT_OK((*writer)->end_run(id, state));
    return id;
  };
  const std::string finished = record(specs[0], RunState::finished, false);
  record(specs[0], RunState::stopped, true);  // the finished one counts
  const std::string stopped = record(specs[1], RunState::stopped, true);
  record(specs[2], RunState::stopped, false);  // nothing to resume from
  record(specs[3], RunState::failed, true);    // failed is run again
  const auto made = plan(*sweep, *StoreReader::open(folder / "runs.db"));
  ASSERT_OK(made);
  ASSERT_EQ(made->already_finished.size(), 1u);
  EXPECT_EQ(made->already_finished[0].id, finished);
  ASSERT_EQ(made->to_resume.size(), 1u);
  EXPECT_EQ(made->to_resume[0].id, stopped);
  ASSERT_EQ(made->to_run.size(), 2u);
  EXPECT_EQ(made->to_run[0].name, specs[2].name);
  EXPECT_EQ(made->sweep_id.size(), 16u);
}

}  // namespace
}  // namespace rat
