// rat eval in a child process: the numbers, the JSON, what is stored, what is refused, and Ctrl+C.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cmath>

#include "tests/app/cli_process.h"

namespace rat::test {
namespace {

std::string train_task(const Workspace& work, const std::string& kind, int seq_len = 32) {
  std::vector<std::string> arguments{"train", "--name", kind, "--steps", "3"};
  for (const std::string& value :
       {"data.kind=" + kind, std::string("data.pairs=2"), std::string("data.queries=2"), std::string("model.vocab=33"),
        std::string("model.d_model=16"), std::string("model.heads=2"), std::string("model.layers=rat:8"),
        fmt::format("train.seq_len={}", seq_len), std::string("train.batch=2"), std::string("train.eval_tokens=256")}) {
    arguments.push_back("--set");
    arguments.push_back(value);
  }
  const Outcome outcome = work.rat(arguments);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  return kind;
}

TEST(CliEval, MeasuresWhatTrainingReported) {
  const Workspace work;
  const std::string id = work.train("first");
  const nlohmann::json stored = work.json({"runs", "show", id})["metrics"];
  const nlohmann::json result = work.json({"eval", "first", "--tokens", "512"});
  EXPECT_EQ(result["step"], 20);
  EXPECT_EQ(result["stored"], true);
  const nlohmann::json& row = result["tasks"][0];
  EXPECT_EQ(row["task"], "perplexity");
  EXPECT_NEAR(row["perplexity"].get<double>(), std::exp(row["loss"].get<double>()), 1e-9);
  EXPECT_NEAR(row["bits_per_byte"].get<double>(), row["loss"].get<double>() / std::log(2.0), 1e-12);
  EXPECT_GT(row["loss_standard_error"], 0);
  EXPECT_GT(row["targets"], 0);
  EXPECT_FALSE(row.contains("chance")) << "text asks nothing";
  const std::string trained = work.json({"runs", "show", id})["spec"]["train"]["eval_tokens"].dump();
  const nlohmann::json same = work.json({"eval", "first", "--tokens", trained})["tasks"][0];
  EXPECT_NEAR(same["loss"].get<double>(), stored["val_loss"]["last"].get<double>(), 1e-6);
  EXPECT_NEAR(same["accuracy"].get<double>(), stored["val_accuracy"]["last"].get<double>(), 1e-9);
  const std::string other = work.path("texts/two.txt").string();
  EXPECT_NE(work.json({"eval", "first", "--data", other})["tasks"][0]["data_hash"], row["data_hash"]);
}

TEST(CliEval, EveryTaskAnswersInOneSchemaAndIsStored) {
  const Workspace work;
  train_task(work, "needle", 48);
  std::vector<std::string> arguments{"eval", "needle", "--sequences", "4"};
  const std::vector<std::string> names{"perplexity", "loss_by_position", "length", "mqar", "needle",
                                       "copy",       "induction"};
  for (const std::string& name : names) arguments.insert(arguments.end(), {"--task", name});
  const nlohmann::json result = work.json(arguments);
  ASSERT_EQ(result["tasks"].size(), names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    const nlohmann::json& task = result["tasks"][i];
    SCOPED_TRACE(names[i]);
    EXPECT_EQ(task["task"], names[i]);
    for (const char* key : {"loss", "loss_standard_error", "perplexity", "accuracy", "accuracy_standard_error",
                            "chance", "context_chance", "sequences", "targets", "seq_len", "elapsed_s"})
      EXPECT_TRUE(task[key].is_number()) << key;
    for (const char* key : {"data", "data_hash", "device", "dtype"}) EXPECT_TRUE(task[key].is_string()) << key;
    EXPECT_TRUE(task["settings"].is_object());
    EXPECT_TRUE(task["notes"].is_array());
    EXPECT_EQ(task["seq_len"], 48);
    EXPECT_FALSE(task.contains("bits_per_byte"));
    ASSERT_FALSE(task["points"].empty());
    for (const auto& point : task["points"])
      for (const char* key : {"metric", "seq_len", "value", "standard_error", "sequences", "targets"})
        EXPECT_TRUE(point.contains(key)) << key;
  }
  const nlohmann::json shown = work.json({"runs", "show", "needle"})["evaluations"];
  ASSERT_EQ(shown.size(), names.size());
  EXPECT_EQ(shown[4]["points"], result["tasks"][4]["points"]) << "what is stored is what was said";
  const Outcome table = work.rat({"runs", "show", "needle"});
  EXPECT_NE(table.out.find("loss_by_position"), std::string::npos) << table.out;
  (void)work.json(arguments);
  EXPECT_EQ(work.json({"runs", "show", "needle"})["evaluations"].size(), names.size()) << "replaced, not added";
}

TEST(CliEval, TablesAndCsvHoldTheNumbers) {
  const Workspace work;
  train_task(work, "needle");
  const std::string csv = work.path("points.csv").string();
  const Outcome outcome = work.rat({"eval", "needle", "--lengths", "24,32", "--depths", "0,1", "--sequences", "5",
                                    "--task", "needle", "--task", "loss_by_position", "--csv", csv, "--no-store"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("accuracy by depth and length"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("bins of 2"), std::string::npos) << outcome.out;
  const std::string text = read_file(csv);
  EXPECT_TRUE(text.starts_with("run,task,step,metric,seq_len,depth,position,value,standard_error,sequences,targets\n"));
  // needle: 2 depths and 4 overall numbers at 2 lengths; loss by position: the same 4, and 2 queries, at 2 lengths.
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1 + 2 * (2 + 4) + 2 * (4 + 2)) << text;
  EXPECT_TRUE(work.json({"runs", "show", "needle"})["evaluations"].empty());
}

TEST(CliEval, ShowsASequenceOfTheTask) {
  const Workspace work;
  train_task(work, "copy");
  const nlohmann::json example = work.json({"eval", "copy", "--show"})["examples"][0];
  ASSERT_EQ(example["inputs"].size(), 32u);
  ASSERT_EQ(example["targets"].size(), 32u);
  const auto inputs = example["inputs"].get<std::vector<int>>(), targets = example["targets"].get<std::vector<int>>();
  const auto n = std::find(inputs.begin(), inputs.end(), 1) - inputs.begin();
  EXPECT_TRUE(std::equal(inputs.begin(), inputs.begin() + n, targets.begin() + n));
  EXPECT_NE(work.rat({"eval", "copy", "--show"}).out.find("targets"), std::string::npos);
}

TEST(CliEval, WhatCannotBeMeasuredIsRefused) {
  const Workspace work;
  train_task(work, "copy");
  EXPECT_EQ(work.rat({"eval", "copy", "--task", "mqra"}).exit_code, 2);
  EXPECT_EQ(work.rat({"eval", "copy", "--lengths", "0"}).exit_code, 2);
  EXPECT_EQ(work.rat({"eval", "copy", "--task", "needle", "--depths", "2"}).exit_code, 2);
  for (const auto& [arguments, part] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"--task", "needle", "--set", "data.pairs=9"}, "needs 52 tokens"},
           {{"--task", "mqar", "--set", "data.pairs=16"}, "seq_len"},
           {{"--set", "train.lr=1"}, "train.lr"},
           {{"--data", "x.txt"}, "--data"},
           {{"--lengths", "65536", "--memory", "0.01"}, "GiB"}}) {
    std::vector<std::string> all{"eval", "copy"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Outcome outcome = work.rat(all);
    EXPECT_EQ(outcome.exit_code, 1) << part;
    EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
  }
  EXPECT_TRUE(work.json({"runs", "show", "copy"})["evaluations"].empty()) << "nothing refused is stored";
}

TEST(CliEval, ThroughDecodingComparesAndIsNotStored) {
  const Workspace work;
  train_task(work, "copy");
  const std::vector<std::string> arguments{"eval", "copy", "--sequences", "6", "--through", "decode"};
  const nlohmann::json result = work.json(arguments);
  const nlohmann::json& task = result["tasks"][0];
  EXPECT_EQ(result["stored"], false);
  EXPECT_EQ(task["settings"]["through"], "decode");
  EXPECT_EQ(task["settings"]["compared_with"], "the parallel pass");
  EXPECT_LE(std::abs(task["loss_difference"].get<double>()), 1e-5);
  EXPECT_LE(task["loss_difference_standard_error"].get<double>(), 1e-5);
  const nlohmann::json pass = work.json({"eval", "copy", "--sequences", "6", "--no-store"})["tasks"][0];
  EXPECT_NEAR(task["loss"].get<double>(), pass["loss"].get<double>(), 1e-5);
  EXPECT_FALSE(pass.contains("loss_difference"));
  const Outcome table = work.rat(arguments);
  EXPECT_NE(table.out.find("decoding with a cache in f32, less the parallel pass"), std::string::npos) << table.out;
  EXPECT_NE(table.out.find("of perplexity"), std::string::npos) << table.out;
  EXPECT_NE(table.err.find("through decoding"), std::string::npos) << table.err;
  EXPECT_TRUE(work.json({"runs", "show", "copy"})["evaluations"].empty());

  const Outcome alone = work.rat({"eval", "copy", "--cache", "fp8"});
  EXPECT_EQ(alone.exit_code, 2);
  EXPECT_NE(alone.err.find("--through decode"), std::string::npos) << alone.err;
  const Outcome refused = work.rat({"eval", "copy", "--through", "decode", "--cache", "fp8"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.err.find("a cache in fp8 is one of 'rat', 'ratplus', 'attention' and 'swa' layers"), std::string::npos) << refused.err;
  EXPECT_EQ(work.rat({"eval", "copy", "--through", "decode", "--cache", "int4"}).exit_code, 2);
}

TEST(CliEval, CtrlCKeepsWhatIsDoneAndNothingHalf) {
  const Workspace work;
  train_task(work, "copy");
  Child child({"eval", "copy", "--task", "copy", "--task", "length", "--lengths", "32", "--sequences", "150000", "--db",
               work.database()},
              "");
  ASSERT_TRUE(child.wait_for_error_text("copy: tokens", std::chrono::seconds(60)));
  child.send(SIGINT);
  const Outcome outcome = child.wait();
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.err.find("Stopped in task 'copy'; 0 of 2"), std::string::npos) << outcome.err;
  EXPECT_TRUE(work.json({"runs", "show", "copy"})["evaluations"].empty());
  EXPECT_EQ(work.rat({"runs", "check"}).exit_code, 0);
}

}  // namespace
}  // namespace rat::test
