// What a newcomer meets first: help, spelling mistakes, exit codes.
#include <gtest/gtest.h>

#include "app/cli/commands.h"
#include "tests/app/cli_process.h"

namespace rat::test {
namespace {

TEST(CliUsage, AloneItPrintsTheOverviewWithEveryCommand) {
  const Outcome outcome = rat({});
  EXPECT_EQ(outcome.exit_code, 0);
  for (const cli::Command& command : cli::commands())
    EXPECT_NE(outcome.out.find("  " + std::string(command.name) + " "), std::string::npos) << command.name;
  EXPECT_EQ(outcome.err, "");
}

TEST(CliUsage, EveryCommandHasHelpWithAnExample) {
  ASSERT_GE(cli::commands().size(), 10u);
  for (const cli::Command& command : cli::commands()) {
    const Outcome outcome = rat({std::string(command.name), "--help"});
    EXPECT_EQ(outcome.exit_code, 0) << command.name;
    EXPECT_EQ(outcome.out.find(std::string(command.summary)), 0u) << command.name;
    EXPECT_NE(outcome.out.find("Examples:\n  rat " + std::string(command.name)), std::string::npos) << command.name;
  }
}

TEST(CliUsage, EveryPartOfRunsAndFigureHasHelpWithAnExample) {
  const std::vector<std::vector<std::string>> parts{
      {"runs", "list"},     {"runs", "show"},       {"runs", "diff"},        {"runs", "rename"}, {"runs", "tag"},
      {"runs", "rm"},       {"runs", "restore"},    {"runs", "merge"},       {"runs", "check"},  {"runs", "backup"},
      {"figure", "curves"}, {"figure", "tradeoff"}, {"figure", "throughput"},
      {"figure", "evaluation"}, {"figure", "scaling"}};
  for (const auto& part : parts) {
    const Outcome outcome = rat({part[0], part[1], "--help"});
    EXPECT_EQ(outcome.exit_code, 0) << part[1];
    EXPECT_NE(outcome.out.find("  rat " + part[0] + " " + part[1]), std::string::npos) << part[1];
    EXPECT_NE(outcome.out.find("--db FILE"), std::string::npos) << part[1];
    EXPECT_NE(outcome.out.find("--json"), std::string::npos) << part[1];
  }
}

TEST(CliUsage, VersionNamesTheCommit) {
  const Outcome outcome = rat({"--version"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.out.find("rat 0."), 0u);
  EXPECT_NE(outcome.out.find("commit "), std::string::npos);
}

TEST(CliUsage, AFullDiskIsNoticed) {
  const Workspace work;
  for (const std::string& arguments : {std::string("--help"), std::string("presets"), std::string("presets --json")}) {
    const std::filesystem::path said = work.path("said");
    const std::string command =
        std::string(RAT_BINARY_DIR) + "/bin/rat " + arguments + " > /dev/full 2> '" + said.string() + "'";
    EXPECT_NE(std::system(command.c_str()), 0) << arguments;
    EXPECT_NE(read_file(said).find("No space left"), std::string::npos) << arguments << ": " << read_file(said);
  }
}

struct Mistake {
  std::vector<std::string> arguments;
  std::string hint;  // must occur in the message
};

TEST(CliUsage, MistakesExitWithTwoAndSuggestTheNearest) {
  const std::vector<Mistake> mistakes{
      {{"trian"}, "'train'"},
      {{"train", "--stpes", "4"}, "'--steps'"},
      {{"runs", "lst"}, "'list'"},
      {{"runs"}, "list, show, diff"},
      {{"train", "--steps", "-4"}, "at least 1"},
      {{"train", "--steps", "many"}, "many"},
      {{"train", "--set", "train.lrr=1"}, "train.lr"},
      {{"train", "--data", ""}, "empty"},
      {{"runs", "list", "--db", ""}, "empty"},
      {{"train", "--set", "train.lr"}, "key=value"},
      {{"train", "--set", "model.layers=rta:16"}, "rat"},
      {{"train", "--resume", "x", "--data", "y"}, "--resume"},
      {{"train", "--set", "data.kind=mqar", "--data", "y"}, "data.kind"},
      {{"generate", "x"}, "--prompt"},
      {{"verify"}, "FILE"},
      {{"bench", "layers"}, "layer"},
      {{"bench", "layer", "--tokens", "100", "--seq-len", "64"}, "multiple"},
      {{"bench", "layer", "--kind", "rta"}, "rat"},
      {{"figure"}, "recipe"},
      {{"figure", "curves", "--runs", "a", "--out", "x.jpg"}, "pdf"},
      {{"inspect", "x", "--text", "t"}, "--probe"},
      {{"doctor", "now"}, "now"},
  };
  for (const Mistake& mistake : mistakes) {
    const Outcome outcome = rat(mistake.arguments);
    EXPECT_EQ(outcome.exit_code, 2) << mistake.hint << ": " << outcome.err;
    EXPECT_NE(outcome.err.find(mistake.hint), std::string::npos) << outcome.err;
    EXPECT_EQ(outcome.out, "") << "results go to stdout, mistakes do not";
    EXPECT_LT(outcome.err.size(), 1200u) << outcome.err;
  }
}

TEST(CliUsage, JsonStaysOneDocumentWhenTheUsageIsWrong) {
  const Outcome outcome = rat({"runs", "lst", "--json"});
  EXPECT_EQ(outcome.exit_code, 2);
  const nlohmann::json document = nlohmann::json::parse(outcome.out, nullptr, false);
  ASSERT_TRUE(document.is_object()) << outcome.out;
  EXPECT_NE(document["error"].get<std::string>().find("list"), std::string::npos);
}

TEST(CliUsage, AMissingDatabaseIsOneSentence) {
  const Workspace work;
  const Outcome outcome = work.rat({"runs", "list"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.err.find(work.database()), std::string::npos) << outcome.err;
  EXPECT_FALSE(std::filesystem::exists(work.database())) << "looking must not create it";
}

}  // namespace
}  // namespace rat::test
