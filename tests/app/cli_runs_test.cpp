// rat runs: every change can be seen, and undone where it says so.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/app/cli_process.h"

namespace rat::test {
namespace {

std::vector<std::string> names(const nlohmann::json& list) {
  std::vector<std::string> result;
  for (const auto& run : list) result.push_back(run["name"]);
  return result;
}

TEST(CliRuns, ListFilterShowAndDiff) {
  const Workspace work;
  const std::string a = work.train("apple", 6), b = work.train("pear", 8);
  EXPECT_EQ(names(work.json({"runs", "list"})), (std::vector<std::string>{"pear", "apple"}));
  EXPECT_EQ(names(work.json({"runs", "list", "--filter", "Finished APP"})), (std::vector<std::string>{"apple"}));
  EXPECT_TRUE(work.json({"runs", "list", "--filter", "nothing like it"}).empty());
  const Outcome table = work.rat({"runs", "list"});
  EXPECT_NE(table.out.find("rat:8,attention"), std::string::npos) << table.out;
  EXPECT_EQ(table.out.find('\033'), std::string::npos);

  const nlohmann::json shown = work.json({"runs", "show", a});
  EXPECT_EQ(shown["spec"]["train"]["steps"], 6);
  EXPECT_EQ(shown["spec"]["data"]["path"], work.path("texts").string());
  EXPECT_NE(shown["commit"], "");

  const nlohmann::json diff = work.json({"runs", "diff", "apple", b});
  std::vector<std::string> keys;
  for (const auto& row : diff["differences"]) keys.push_back(row["what"]);
  EXPECT_NE(std::ranges::find(keys, "train.steps"), keys.end());
  EXPECT_EQ(std::ranges::find(keys, "model.d_model"), keys.end()) << "only what differs";
  EXPECT_EQ(work.rat({"runs", "diff", a, a}).out, "");
}

TEST(CliRuns, AnUnknownRunSuggestsTheNearest) {
  const Workspace work;
  work.train("baseline", 4);
  const Outcome outcome = work.rat({"runs", "show", "basline"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.err.find("'baseline'"), std::string::npos) << outcome.err;
  const nlohmann::json document = work.json({"runs", "show", "basline"}, 1);
  EXPECT_NE(document["error"].get<std::string>().find("baseline"), std::string::npos);
}

TEST(CliRuns, RenameAndTag) {
  const Workspace work;
  const std::string id = work.train("first", 4);
  EXPECT_EQ(work.rat({"runs", "rename", "first", "second"}).exit_code, 0);
  EXPECT_EQ(work.rat({"runs", "tag", "second", "paper", "baseline"}).exit_code, 0);
  const nlohmann::json run = work.json({"runs", "list"})[0];
  EXPECT_EQ(run["id"], id);
  EXPECT_EQ(run["name"], "second");
  EXPECT_EQ(run["tags"], (nlohmann::json{"baseline", "paper"})) << "a set: kept in order of the alphabet";
}

TEST(CliRuns, DeleteAndRestore) {
  const Workspace work;
  const std::string a = work.train("a", 4), b = work.train("b", 4);
  EXPECT_EQ(work.rat({"runs", "rm", a, "no-such-run"}).exit_code, 1);
  EXPECT_EQ(work.json({"runs", "list"}).size(), 2u) << "a typing error deletes nothing";
  EXPECT_EQ(work.json({"runs", "rm", a, b})["deleted"].size(), 2u);
  EXPECT_TRUE(work.json({"runs", "list"}).empty());
  EXPECT_EQ(work.json({"runs", "list", "--deleted"}).size(), 2u);
  EXPECT_EQ(work.rat({"runs", "restore", "a"}).exit_code, 0);
  EXPECT_EQ(names(work.json({"runs", "list"})), (std::vector<std::string>{"a"}));
  EXPECT_EQ(work.json({"runs", "show", a})["metrics"]["loss"]["count"], 4) << "nothing was lost";
}

TEST(CliRuns, BackupMergeAndCheck) {
  const Workspace work;
  const std::string id = work.train("first", 4);
  EXPECT_EQ(work.rat({"runs", "check"}).exit_code, 0);
  const std::string copy = work.path("copy.db").string();
  EXPECT_EQ(work.rat({"runs", "backup", copy}).exit_code, 0);
  const Outcome listed = rat({"runs", "list", "--json", "--db", copy});
  EXPECT_EQ(names(nlohmann::json::parse(listed.out)), (std::vector<std::string>{"first"}));

  const std::string other = work.path("other.db").string();
  const Outcome merged = rat({"runs", "merge", work.database(), "--db", other, "--json"});
  ASSERT_EQ(merged.exit_code, 0) << merged.err;
  EXPECT_EQ(nlohmann::json::parse(merged.out)["merged"], 1);
  const Outcome again = rat({"runs", "merge", work.database(), "--db", other, "--json"});
  EXPECT_EQ(nlohmann::json::parse(again.out)["merged"], 0) << "what is there is left as it is";

  std::filesystem::remove(work.json({"runs", "show", id})["checkpoint"].get<std::string>());
  const Outcome broken = work.rat({"runs", "check"});
  EXPECT_EQ(broken.exit_code, 1) << "a missing checkpoint is found";
  EXPECT_NE(broken.err, "");
}

TEST(CliRuns, AForeignFileIsRefusedAndLeftAlone) {
  const Workspace work;
  const std::string text = "this is somebody's thesis, not a database\n";
  write_file(work.path("thesis.txt"), text);
  const std::string file = work.path("thesis.txt").string();
  std::vector<std::string> training = work.tiny_training("x", 2);
  training.insert(training.end(), {"--db", file});
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"runs", "list", "--db", file}, {"runs", "rm", "x", "--db", file}, training}) {
    const Outcome outcome = rat(arguments);
    EXPECT_EQ(outcome.exit_code, 1) << outcome.err;
    EXPECT_NE(outcome.err.find("thesis.txt"), std::string::npos) << outcome.err;
    EXPECT_EQ(read_file(work.path("thesis.txt")), text);
  }
}

}  // namespace
}  // namespace rat::test
