// What comes out of a trained run: text, traces, figures, sweeps.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/io/safetensors.h"
#include "tests/app/cli_process.h"

namespace rat::test {
namespace {

TEST(CliResults, TokensThatAreNotTextCannotContinueAPrompt) {
  const Workspace work;
  const Outcome trained = work.rat({"train", "--name", "recall", "--steps", "1", "--set", "data.kind=mqar", "--set",
                                    "model.d_model=16", "--set", "model.heads=2", "--set", "model.layers=rat:8", "--set",
                                    "train.seq_len=32", "--set", "train.batch=2", "--set", "train.eval_tokens=64"});
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const Outcome text = work.rat({"generate", "recall", "--prompt", "x"});
  EXPECT_EQ(text.exit_code, 1) << "its tokens are not text";
  EXPECT_NE(text.err.find("mqar"), std::string::npos) << text.err;
}

TEST(CliResults, GenerateIsReproducibleAndStreamsExactlyTheBytes) {
  const Workspace work;
  work.train("first");
  const std::vector<std::string> arguments{"generate", "first", "--prompt", "line ", "--tokens", "40", "--seed", "3"};
  const nlohmann::json result = work.json(arguments);
  ASSERT_EQ(result["tokens"].size(), 40u);
  EXPECT_GT(result["cache_bytes"], 0);
  EXPECT_EQ(result["cache_dtype"], "f32");
  std::string bytes;
  for (const auto& token : result["tokens"]) bytes.push_back(static_cast<char>(token.get<int>()));
  EXPECT_EQ(work.rat(arguments).out, bytes + "\n");
  std::vector<std::string> other = arguments;
  other.back() = "4";
  EXPECT_NE(work.json(other)["tokens"], result["tokens"]);
  EXPECT_EQ(work.rat({"generate", "first", "--prompt", ""}).exit_code, 1);
}

TEST(CliResults, SamplesAreDrawnAtOnceEachAsItsSeedDrawsAlone) {
  const Workspace work;
  work.train("first");
  const std::vector<std::string> alone{"generate", "first", "--prompt", "line ", "--tokens", "40", "--seed"};
  const auto with = [](std::vector<std::string> arguments, const std::vector<std::string>& more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  };
  const nlohmann::json result = work.json(with(alone, {"3", "--samples", "5"}));
  ASSERT_EQ(result["samples"].size(), 5u);
  EXPECT_FALSE(result.contains("text"));
  std::string printed;
  for (int i = 0; i < 5; ++i) {
    const nlohmann::json& sample = result["samples"][static_cast<std::size_t>(i)];
    EXPECT_EQ(sample["seed"], 3 + i);
    EXPECT_EQ(sample["tokens"].size(), 40u);
    const nlohmann::json one = work.json(with(alone, {std::to_string(3 + i)}));
    EXPECT_EQ(sample["tokens"], one["tokens"]) << i;  // products of few rows are summed as those of one
    EXPECT_EQ(result["cache_bytes"], 5 * one["cache_bytes"].get<int64_t>());
    std::string text;
    for (const auto& token : sample["tokens"]) text.push_back(static_cast<char>(token.get<int>()));
    printed += "--- sample " + std::to_string(i + 1) + " of 5, seed " + std::to_string(3 + i) + " ---\n" + text + "\n";
  }
  EXPECT_NE(result["samples"][0]["tokens"], result["samples"][1]["tokens"]);
  EXPECT_EQ(work.rat(with(alone, {"3", "--samples", "5"})).out, printed);
  EXPECT_EQ(work.rat(with(alone, {"3", "--samples", "1"})).out, work.rat(with(alone, {"3"})).out);
  EXPECT_EQ(result["dtype"], "f32");
  const Outcome half = work.rat(with(alone, {"3", "--samples", "2", "--dtype", "bf16"}));  // which not every CPU has
  EXPECT_NE(half.err.find("bf16"), std::string::npos) << half.err;
  EXPECT_EQ(half.exit_code == 0, half.out.find("--- sample 2 of 2") != std::string::npos) << half.err;
  EXPECT_EQ(work.rat(with(alone, {"3", "--dtype", "f16"})).exit_code, 2);
  for (const char* wrong : {"0", "-1", "many"})
    EXPECT_EQ(work.rat(with(alone, {"3", "--samples", wrong})).exit_code, 2) << wrong;
}

TEST(CliResults, InspectWritesTheTensorsItNames) {
  const Workspace work;
  work.train("first");
  const std::string file = work.path("trace.safetensors").string();
  const nlohmann::json result =
      work.json({"inspect", "first", "--text", "the rat reads", "--probe", "gate", "attention", "--out", file});
  const auto trace = SafetensorsFile::open(file);
  ASSERT_TRUE(trace) << trace.error().message;
  ASSERT_EQ(result["tensors"].size(), 3u) << "gate of the rat layer, maps of both";
  for (const auto& tensor : result["tensors"]) {
    const std::string name = tensor["name"];
    ASSERT_TRUE(trace->contains(name)) << name;
    EXPECT_EQ(nlohmann::json(trace->tensors().at(name).shape), tensor["shape"]);
  }
  EXPECT_EQ(trace->tensors().at("gate/0").shape, (std::vector<int64_t>{13, 32}));
  const auto gate = trace->read_floats("gate/0");
  ASSERT_TRUE(gate);
  EXPECT_TRUE(std::ranges::all_of(*gate, [](float g) { return g >= 0 && g <= 1; }));
}

TEST(CliResults, InspectRefusesWhatIsNotThere) {
  const Workspace work;
  work.train("first");
  const auto attempt = [&](const std::string& probe, const std::string& layer) {
    return work.rat({"inspect", "first", "--text", "x", "--probe", probe, "--layer", layer, "--out",
                     work.path("t.safetensors").string()});
  };
  for (const auto& [probe, layer] : {std::pair{"gate", "7"}, {"gaet", "0"}, {"gate", "1"}}) {
    const Outcome outcome = attempt(probe, layer);
    EXPECT_EQ(outcome.exit_code, 1) << probe << " " << layer;
    EXPECT_FALSE(std::filesystem::exists(work.path("t.safetensors")));
  }
}

TEST(CliResults, FigureWritesDataAndARecipeThatRebuildsIt) {
  const Workspace work;
  work.train("first");
  const std::string out = work.path("loss.csv").string();
  const nlohmann::json result = work.json({"figure", "curves", "--runs", "first", "--metric", "loss", "--out", out});
  EXPECT_TRUE(result["missing"].empty());
  const std::string csv = read_file(out);
  EXPECT_GE(std::count(csv.begin(), csv.end(), '\n'), 20) << csv;
  std::filesystem::remove(out);
  const std::string recipe = work.path("loss.json").string(), before = read_file(recipe);
  EXPECT_EQ(work.rat({"figure", recipe, "--format", "csv,tikz"}).exit_code, 0);
  EXPECT_EQ(read_file(out), csv) << "the same figure again";
  EXPECT_EQ(read_file(recipe), before) << "the recipe that was read is not written over";
  EXPECT_TRUE(std::filesystem::exists(work.path("loss.tikz")));
}

TEST(CliResults, APictureIsDrawnOrItsAbsenceIsAFailure) {
  const Workspace work;
  work.train("first");
  const Outcome outcome = work.rat({"figure", "curves", "--runs", "first", "--out", work.path("loss.pdf").string()});
  EXPECT_TRUE(std::filesystem::exists(work.path("loss.csv"))) << "the data are there either way";
  EXPECT_TRUE(std::filesystem::exists(work.path("loss.json")));
  if (std::filesystem::exists(work.path("loss.pdf"))) {
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(read_file(work.path("loss.pdf")).substr(0, 5), "%PDF-");
  } else {
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_NE(outcome.err.find("rat-workbench"), std::string::npos) << outcome.err;
  }
}

std::string sweep_file(const Workspace& work) {
  const std::string file = work.path("sweep.json").string();
  const std::string texts = work.path("texts").string();
  write_file(file, R"({"name": "lengths", "question": "?", "base": {"data": {"path": ")" + texts + R"("},
    "model": {"d_model": 32, "heads": 2}, "train": {"seq_len": 32, "batch": 2, "steps": 5,
      "eval_tokens": 128, "warmup": 1}},
    "grid": {"model.layers": ["rat:4", "rat:16"], "train.seed": [1, 2]}})");
  return file;
}

TEST(CliResults, ASweepRunsEveryPointOnceAndOnlyOnce) {
  const Workspace work;
  const std::string file = sweep_file(work);
  EXPECT_EQ(work.json({"sweep", file, "--dry-run"})["to_run"].size(), 4u);
  EXPECT_FALSE(std::filesystem::exists(work.database())) << "a dry run makes no database";
  const nlohmann::json first = work.json({"sweep", file});
  ASSERT_EQ(first["runs"].size(), 4u);
  for (const auto& run : first["runs"]) EXPECT_EQ(run["state"], "finished");
  EXPECT_EQ(work.json({"runs", "list"}).size(), 4u);
  const Outcome again = work.rat({"sweep", file});
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_NE(again.err.find("0 to run"), std::string::npos) << again.err;
  EXPECT_EQ(std::count(again.out.begin(), again.out.end(), '\n'), 5) << "a heading and four rows: " << again.out;
  EXPECT_EQ(work.json({"runs", "list"}).size(), 4u) << "nothing was run twice";
  EXPECT_EQ(work.json({"sweep", file, "--set", "train.steps=6", "--dry-run"})["to_run"].size(), 4u) << "another sweep";
}

}  // namespace
}  // namespace rat::test
