// The parts of the command line that need no child process: tables, numbers, suggestions, progress.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "app/cli/context.h"
#include "app/cli/output.h"
#include "app/cli/progress.h"

namespace rat::cli {
namespace {

TEST(CliOutput, TablesAlignByCodePoints) {
  Table table({{"name"}, {"loss", Table::Align::right}});
  table.add({"größe", "2.5"});
  table.add({"a", "10.25"});
  EXPECT_EQ(table.text(), "name    loss\ngröße    2.5\na      10.25\n");
}

TEST(CliOutput, Numbers) {
  EXPECT_EQ(format_count(12), "12");
  EXPECT_EQ(format_count(999.6), "1k");
  EXPECT_EQ(format_count(12'345), "12.3k");
  EXPECT_EQ(format_count(3'456'000), "3.46M");
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_duration(59.99), "1 min 00 s");
  EXPECT_EQ(format_duration(3725), "1 h 02 min");
  EXPECT_EQ(format_duration(std::nan("")), "-");
  EXPECT_EQ(format_time(0), "-");
}

TEST(CliOutput, NearestFindsTyposAndNothingElse) {
  const std::vector<std::string> known{"train", "sweep", "generate"};
  EXPECT_EQ(nearest("trian", known), "train");
  EXPECT_EQ(nearest("generat", known), "generate");
  EXPECT_EQ(nearest("zzzzzz", known), "");
  EXPECT_EQ(nearest("train", {}), "");
}

// What a Progress writes for updates at the given seconds, one step each.
std::string progress_text(bool terminal, int64_t total, const std::vector<double>& seconds) {
  std::FILE* file = std::tmpfile();
  const Progress::Clock::time_point start{};
  {
    Progress progress(file, terminal, "step", 0, total, start);
    int64_t done = 0;
    for (const double second : seconds)
      progress.update(
          ++done, "loss 1.0",
          start + std::chrono::duration_cast<Progress::Clock::duration>(std::chrono::duration<double>(second)));
  }
  std::string text(static_cast<std::size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  EXPECT_EQ(std::fread(text.data(), 1, text.size(), file), text.size());
  std::fclose(file);
  return text;
}

int64_t lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

TEST(CliProgress, PlainLinesComeEveryFivePercentAndCarryNoControlCharacters) {
  std::vector<double> seconds;
  for (int i = 1; i <= 1000; ++i) seconds.push_back(i * 0.001);
  const std::string text = progress_text(false, 1000, seconds);
  EXPECT_EQ(lines(text), 20);
  EXPECT_EQ(text.find('\033'), std::string::npos);
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_NE(text.find("step 1000/1000"), std::string::npos);
}

TEST(CliProgress, PlainLinesComeEveryTenSecondsOfSlowWork) {
  std::vector<double> seconds;
  for (int i = 1; i <= 12; ++i) seconds.push_back(i * 5.0);  // 12 of 1000 steps in a minute
  EXPECT_EQ(lines(progress_text(false, 1000, seconds)), 6);
}

TEST(CliProgress, ATerminalGetsOneLineRedrawnAtMostTenTimesASecondAndClearedAtTheEnd) {
  std::vector<double> seconds;
  for (int i = 1; i <= 500; ++i) seconds.push_back(i * 0.01);  // 5 s
  const std::string text = progress_text(true, 1000, seconds);
  EXPECT_EQ(lines(text), 0);
  const int64_t drawn = std::count(text.begin(), text.end(), '\r');
  EXPECT_GE(drawn, 40);
  EXPECT_LE(drawn, 52);
  EXPECT_TRUE(text.ends_with("\r\033[K"));
}

}  // namespace
}  // namespace rat::cli
