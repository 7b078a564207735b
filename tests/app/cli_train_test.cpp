// rat train as a person and an operating system treat it: finished, continued, interrupted, killed.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <thread>

#include "tests/app/cli_process.h"

namespace rat::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::string state_of(const Workspace& work, const std::string& run) {
  return work.json({"runs", "show", run})["state"];
}

TEST(CliTrain, TrainsAndReports) {
  const Workspace work;
  const nlohmann::json result = work.json(work.tiny_training("first", 20));
  EXPECT_EQ(result["state"], "finished");
  EXPECT_EQ(result["steps"], 20);
  EXPECT_EQ(result["layers"], "rat:8,attention");
  const double loss = result["metrics"]["loss"]["last"];
  EXPECT_GT(loss, 0);
  EXPECT_LT(loss, 5.6) << "untrained, the loss is about ln 256 = 5.55";
  EXPECT_EQ(result["metrics"]["loss"]["count"], 20);
  EXPECT_TRUE(std::filesystem::exists(result["checkpoint"].get<std::string>()));
}

TEST(CliTrain, StdoutIsTheIdAndStderrHasPlainLines) {
  const Workspace work;
  const Outcome outcome = work.rat(work.tiny_training("first", 40));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 1);
  EXPECT_EQ(state_of(work, outcome.out.substr(0, outcome.out.find('\n'))), "finished");
  EXPECT_EQ(outcome.err.find('\033'), std::string::npos) << "no escape codes where there is no terminal";
  EXPECT_EQ(outcome.err.find('\r'), std::string::npos);
  EXPECT_NE(outcome.err.find("step 40/40"), std::string::npos) << outcome.err;
}

TEST(CliTrain, ReadsStandardInputAndASpecFile) {
  const Workspace work;
  write_file(
      work.path("spec.json"),
      R"({"model": {"d_model": 32, "heads": 2, "layers": "rnn"},
                 "train": {"seq_len": 16, "batch": 2, "steps": 5, "eval_tokens": 64}})");
  const Outcome outcome = work.rat({"train", "--spec", work.path("spec.json").string(), "--data", "-"},
                                   read_file(work.path("texts/one.txt")));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("rnn"), std::string::npos);
}

TEST(CliTrain, SaysInOneSentenceWhatIsWrongWithTheData) {
  const Workspace work;
  write_file(work.path("empty.txt"), "");
  std::vector<std::string> arguments = work.tiny_training("first", 5);
  for (const std::string& bad : {work.path("empty.txt").string(), work.path("absent").string()}) {
    *(std::find(arguments.begin(), arguments.end(), "--data") + 1) = bad;
    const Outcome outcome = work.rat(arguments);
    EXPECT_EQ(outcome.exit_code, 1) << outcome.err;
    EXPECT_NE(outcome.err.find(bad), std::string::npos) << outcome.err;
    EXPECT_EQ(outcome.out, "");
  }
}

// Steps enough that the run is still going when it is interrupted.
constexpr int endless = 1'000'000;

TEST(CliTrain, CtrlCFinishesTheStepAndTheRunGoesOnFromThere) {
  const Workspace work;
  std::vector<std::string> arguments = work.tiny_training("long", endless);
  arguments.insert(arguments.end(), {"--set", "train.checkpoint_every=0", "--json", "--db", work.database()});
  Child child(arguments, "");
  ASSERT_TRUE(child.wait_for_error_text("parameters", seconds(60)));
  std::this_thread::sleep_for(milliseconds(300));
  child.send(SIGINT);
  const Outcome outcome = child.wait(seconds(20));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::json result = nlohmann::json::parse(outcome.out, nullptr, false);
  ASSERT_FALSE(result.is_discarded()) << outcome.out;
  EXPECT_EQ(result["state"], "stopped");
  const int step = result["steps"];
  EXPECT_GT(step, 0);
  EXPECT_NE(outcome.err.find("rat train --resume " + result["id"].get<std::string>()), std::string::npos)
      << outcome.err;
  EXPECT_TRUE(std::filesystem::exists(result["checkpoint"].get<std::string>()));

  const std::string id = result["id"];
  const nlohmann::json resumed = work.json({"train", "--resume", id, "--steps", std::to_string(step + 5)});
  EXPECT_EQ(resumed["id"], id);
  EXPECT_EQ(resumed["state"], "finished");
  EXPECT_EQ(resumed["steps"], step + 5);
  EXPECT_EQ(resumed["metrics"]["loss"]["count"], step + 5) << "every step is logged once";
}

TEST(CliTrain, ASecondCtrlCEndsWithinASecond) {
  const Workspace work;
  // Steps of seconds: the first signal alone would have to wait for one.
  const std::vector<std::string> arguments{"train",
                                           "--data",
                                           work.path("texts").string(),
                                           "--steps",
                                           "1000",
                                           "--db",
                                           work.database(),
                                           "--set",
                                           "model.layers=rat:16*12",
                                           "--set",
                                           "model.d_model=512",
                                           "--set",
                                           "train.batch=16"};
  Child child(arguments, "");
  ASSERT_TRUE(child.wait_for_error_text("parameters", seconds(60)));
  std::this_thread::sleep_for(milliseconds(200));
  child.send(SIGINT);
  ASSERT_TRUE(child.wait_for_error_text("Stopping after this step", seconds(5)));
  const auto start = std::chrono::steady_clock::now();
  child.send(SIGTERM);
  const Outcome outcome = child.wait(seconds(10));
  const auto took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - start);
  EXPECT_FALSE(outcome.timed_out);
  EXPECT_LE(took.count(), 1000);
  EXPECT_TRUE(outcome.exit_code == 0 || outcome.exit_code == 1) << outcome.exit_code << outcome.err;
}

TEST(CliTrain, AKilledRunIsCrashedAndResumesFromItsCheckpoint) {
  const Workspace work;
  std::vector<std::string> arguments = work.tiny_training("killed", endless);
  arguments.insert(arguments.end(), {"--set", "train.checkpoint_every=10", "--db", work.database()});
  Child child(arguments, "");
  ASSERT_TRUE(child.wait_for_error_text("parameters", seconds(60)));
  std::string checkpoint;
  for (int i = 0; i < 200 && checkpoint.empty(); ++i) {
    std::this_thread::sleep_for(milliseconds(100));
    checkpoint = work.json({"runs", "show", "killed"})["checkpoint"];
  }
  ASSERT_NE(checkpoint, "") << "no checkpoint within 20 s";
  child.send(SIGKILL);
  EXPECT_EQ(child.wait().exit_code, 128 + SIGKILL);
  EXPECT_EQ(state_of(work, "killed"), "crashed");
  const int step = work.json({"runs", "show", "killed"})["steps"];

  const nlohmann::json resumed = work.json({"train", "--resume", "killed", "--steps", std::to_string(step + 20)});
  EXPECT_EQ(resumed["state"], "finished");
  EXPECT_EQ(resumed["steps"], step + 20);
}

TEST(CliTrain, AResumedRunEndsWithTheSameLossAsOneThatWasNotInterrupted) {
  const Workspace work;
  const nlohmann::json whole = work.json(work.tiny_training("whole", 30));
  std::vector<std::string> arguments = work.tiny_training("parts", 30);
  arguments.insert(arguments.end(), {"--set", "train.checkpoint_every=10"});
  Child child(
      [&] {
        auto words = arguments;
        words.insert(words.end(), {"--db", work.database()});
        return words;
      }(),
      "");
  ASSERT_TRUE(child.wait_for_error_text("/30  loss", seconds(60)));
  child.send(SIGINT);  // somewhere among the 30 steps
  child.wait(seconds(20));
  if (state_of(work, "parts") != "finished") work.json({"train", "--resume", "parts"});
  const nlohmann::json parts = work.json({"runs", "show", "parts"});
  EXPECT_EQ(parts["state"], "finished");
  EXPECT_EQ(parts["metrics"]["loss"]["last"], whole["metrics"]["loss"]["last"]) << "bit for bit";
  EXPECT_EQ(parts["metrics"]["val_loss"]["last"], whole["metrics"]["val_loss"]["last"]);
}

TEST(CliTrain, AFinishedRunIsNotResumedWithoutMoreSteps) {
  const Workspace work;
  const std::string id = work.train("first", 10);
  const Outcome outcome = work.rat({"train", "--resume", id});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_EQ(work.json({"train", "--resume", id, "--steps", "12"})["steps"], 12);
}

}  // namespace
}  // namespace rat::test
