// Layer stacks on the command line: `--layers` puts other settings on a trained run's weights; presets name stacks.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "core/config.h"
#include "core/presets.h"
#include "tests/app/cli_process.h"

namespace rat::test {
namespace {

std::vector<std::string> training(const Workspace& work, const std::string& name, const std::string& layers,
                                  int steps) {
  std::vector<std::string> arguments = work.tiny_training(name, steps);
  arguments.insert(arguments.end(), {"--set", "model.layers=" + layers});
  return arguments;
}

void train(const Workspace& work, const std::string& name, const std::string& layers) {
  const Outcome outcome = work.rat(training(work, name, layers, 5));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
}

double loss_of(const nlohmann::json& evaluation) { return evaluation.at("tasks").at(0).at("loss").get<double>(); }

TEST(CliLayers, EvalMeasuresOtherDilationsWithoutKeepingThem) {
  const Workspace work;
  train(work, "plus", "ratplus*2");
  const std::vector<std::string> trained{"eval", "plus", "--tokens", "256", "--no-store"};
  const auto with = [&](const std::string& layers) {
    std::vector<std::string> arguments{"eval", "plus", "--tokens", "256", "--layers", layers};
    return work.json(arguments);
  };
  const double dense = loss_of(work.json(trained));
  const nlohmann::json dilated = with("ratplus:8");
  EXPECT_EQ(dilated["layers"], "ratplus:8*2") << "repeated to the model's depth";
  EXPECT_EQ(dilated["stored"], false);
  EXPECT_NE(loss_of(dilated), dense);
  EXPECT_EQ(loss_of(with("ratplus:1,ratplus")), dense) << "the settings of training, spelled out";
  EXPECT_NEAR(loss_of(with("ratplus:8/w32")), dense, 1e-6) << "the window covers all of T = 32";
  EXPECT_EQ(loss_of(work.json(trained)), dense) << "the run itself is as it was";
  EXPECT_EQ(work.json({"eval", "plus", "--tokens", "256"})["stored"], true) << "only --layers is not kept";
}

TEST(CliLayers, GenerateCachesOnlyWhatTheDilationKeeps) {
  const Workspace work;
  train(work, "plus", "ratplus*2");
  const std::vector<std::string> trained{"generate", "plus", "--prompt", "the rat", "--tokens", "20"};
  std::vector<std::string> dilated = trained;
  dilated.insert(dilated.end(), {"--layers", "ratplus:8"});
  const nlohmann::json sparse = work.json(dilated);
  EXPECT_EQ(sparse["layers"], "ratplus:8*2");
  EXPECT_EQ(sparse["tokens"].size(), 20u);
  EXPECT_LT(2 * sparse["cache_bytes"].get<int64_t>(), work.json(trained)["cache_bytes"].get<int64_t>());
}

TEST(CliLayers, InspectSeesTheChunksOfTheOtherLength) {
  const Workspace work;
  train(work, "chunks", "rat:8*2");
  for (const int64_t chunk : {8, 4, 1}) {
    const Outcome outcome =
        work.rat({"inspect", "chunks", "--text", "hello world", "--probe", "attention", "--layers",
                  "rat:" + std::to_string(chunk), "--out", work.path("t.safetensors").string(), "--json"});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const nlohmann::json tensors = nlohmann::json::parse(outcome.out)["tensors"];
    ASSERT_EQ(tensors.size(), 2u);
    // The ends of all chunks but the last, which no token can look back on, and the token's own state.
    for (const auto& tensor : tensors) EXPECT_EQ(tensor["shape"], nlohmann::json({2, 11, (11 + chunk - 1) / chunk}));
    const std::string meaning = chunk == 8 ? "was trained with" : "off-distribution";
    EXPECT_NE(outcome.err.find(meaning), std::string::npos) << outcome.err;
  }
}

TEST(CliLayers, WhatNeedsOtherWeightsIsRefusedByEveryCommand) {
  const Workspace work;
  train(work, "chunks", "rat:8*2");
  const std::string out = work.path("t.safetensors").string();
  const std::vector<std::vector<std::string>> commands{
      {"eval", "chunks"},
      {"generate", "chunks", "--prompt", "x"},
      {"inspect", "chunks", "--text", "x", "--probe", "attention", "--out", out}};
  const std::vector<std::pair<std::string, std::string>> refused{
      {"rnn", "other weights"},          // another kind
      {"rat:4*3", "2 layers"},           // another depth
      {"rat:4,attention", "layer 1"},    // one of them another kind
      {"rat:0", "at least 1"},           // no chunk length
      {"rta:8", "did you mean 'rat'"}};  // no mixer
  for (const auto& command : commands)
    for (const auto& [layers, hint] : refused) {
      std::vector<std::string> arguments = command;
      arguments.insert(arguments.end(), {"--layers", layers});
      const Outcome outcome = work.rat(arguments);
      EXPECT_EQ(outcome.exit_code, 1) << command[0] << " " << layers;
      EXPECT_NE(outcome.err.find(hint), std::string::npos) << outcome.err;
      EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
      EXPECT_EQ(outcome.out, "");
    }
  EXPECT_FALSE(std::filesystem::exists(out));
}

TEST(CliLayers, PresetsAreListedAsTextAndAsJson) {
  const Workspace work;
  const Outcome table = work.rat({"presets"});
  EXPECT_EQ(table.exit_code, 0);
  const nlohmann::json rows = work.json({"presets"});
  ASSERT_EQ(rows.size(), layer_presets().size());
  for (const nlohmann::json& row : rows) {
    for (const char* key : {"name", "layers", "description"})
      EXPECT_NE(table.out.find(row.at(key).get<std::string>()), std::string::npos) << row.dump();
    const auto named = parse_layers(row["name"].get<std::string>());
    const auto written = parse_layers(row["layers"].get<std::string>());
    ASSERT_TRUE(named && written) << row.dump();
    EXPECT_EQ(*named, *written);
  }
  EXPECT_EQ(work.rat({"presets", "rat-swa"}).exit_code, 2);
}

TEST(CliLayers, EveryPresetTrains) {
  const Workspace work;
  for (const LayerPreset& preset : layer_presets()) {
    std::vector<std::string> arguments = training(work, std::string(preset.name), std::string(preset.name), 1);
    const nlohmann::json result = work.json(arguments);
    EXPECT_EQ(result["state"], "finished") << result.dump();
    EXPECT_EQ(*parse_layers(result["layers"].get<std::string>()), *parse_layers(preset.pattern)) << preset.name;
  }
}

}  // namespace
}  // namespace rat::test
