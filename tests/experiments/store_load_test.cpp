// Many writers at once, and readers that stay too long.
#include <SQLiteCpp/SQLiteCpp.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "tests/experiments/store_crash.h"
#include "tests/experiments/store_fixture.h"

extern char** environ;

namespace rat {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

// RAT_STORE_LOAD_SECONDS=60 for the long form.
double load_seconds() {
  const char* text = std::getenv("RAT_STORE_LOAD_SECONDS");
  return text ? std::atof(text) : 2.5;
}

pid_t spawn_writer(const fs::path& db, const fs::path& acknowledged) {
  std::vector<std::string> arguments{std::string(RAT_BINARY_DIR) + "/bin/store_crash_writer", db.string(),
                                     acknowledged.string()};
  std::vector<char*> raw;
  for (std::string& argument : arguments) raw.push_back(argument.data());
  raw.push_back(nullptr);
  pid_t pid = 0;
  return posix_spawn(&pid, raw[0], nullptr, nullptr, raw.data(), environ) == 0 ? pid : -1;
}

TEST_F(Store, ManyProcessesAndThreadsWriteAtOnce) {
  constexpr int processes = 3, threads = 4;
  std::vector<pid_t> children;
  for (int i = 0; i < processes; ++i) children.push_back(spawn_writer(path_, folder_ / fmt::format("ack-{}", i)));
  std::vector<std::string> ids;
  for (int i = 0; i < threads; ++i) ids.push_back(create(fmt::format("thread {}", i)));

  std::array<int64_t, threads> flushed{};
  std::vector<std::string> problems(threads);
  {
    std::vector<std::jthread> workers;
    for (std::size_t i = 0; i < threads; ++i)
      workers.emplace_back([&, i](const std::stop_token& stop) {
        for (int64_t step = 0; !stop.stop_requested(); ++step) {
          writer_->log(ids[i], "loss", step, static_cast<double>(step), 0);
          if (step % 50 != 49) continue;
          if (const Status done = writer_->flush(); !done)
            problems[i] = done.error().message;
          else
            flushed[i] = step + 1;
          std::this_thread::sleep_for(5ms);
        }
      });
    auto watching = reader();
    int64_t reads = 0;
    const auto start = std::chrono::steady_clock::now();
    const auto until = start + std::chrono::duration<double>(load_seconds());
    const auto heard = [&](int i) { return !file_bytes(folder_ / fmt::format("ack-{}", i)).empty(); };
    const auto someone_waits = [&] {  // on a busy machine the last child may only be starting
      for (int i = 0; i < processes; ++i)
        if (!heard(i)) return std::chrono::steady_clock::now() < start + 60s;
      return false;
    };
    while (std::chrono::steady_clock::now() < until || someone_waits()) {
      ASSERT_OK(watching.runs());
      ++reads;
    }
    EXPECT_GT(reads, 5);
  }
  for (int i = 0; i < processes; ++i) {
    ASSERT_EQ(kill(children[static_cast<std::size_t>(i)], SIGKILL), 0);
    int status = 0;
    waitpid(children[static_cast<std::size_t>(i)], &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << "a writer gave up by itself: it was told that the database is busy";
  }
  for (const std::string& problem : problems) EXPECT_EQ(problem, "");
  EXPECT_OK(writer_->flush());
  const auto all = reader();
  EXPECT_OK(all.check());
  for (std::size_t i = 0; i < threads; ++i) {
    EXPECT_GT(flushed[i], 0) << "a writer starved";
    EXPECT_GE(static_cast<int64_t>(all.series(ids[i], "loss")->size()), flushed[i]);
  }
  for (int i = 0; i < processes; ++i) {
    Acknowledged note{};
    const std::string bytes = file_bytes(folder_ / fmt::format("ack-{}", i));
    ASSERT_EQ(bytes.size(), sizeof note);
    std::memcpy(&note, bytes.data(), sizeof note);
    EXPECT_GT(note.steps, 0) << "a writer starved";
    EXPECT_GE(static_cast<int64_t>(all.series(note.run_id, crash_metric_name(0))->size()), note.steps);
  }
}

// A program that holds a reading transaction open keeps the log from being emptied: said, and undone when it leaves.
TEST_F(Store, ALogThatGrowsIsAnnouncedAndShrinks) {
  const std::string id = create("long");
  ASSERT_OK(writer_->flush());
  const fs::path log = path_.string() + "-wal";
  auto stuck = std::make_unique<SQLite::Database>(path_.string(), SQLite::OPEN_READONLY, 5000);
  stuck->exec("BEGIN");
  EXPECT_EQ(stuck->execAndGet("SELECT count(*) FROM runs").getInt(), 1);
  // Other content each time: SQLite does not write a page again that stays as it is.
  for (char i = 0; i < 10 && writer_->health().problem.empty(); ++i)
    ASSERT_OK(writer_->set_spec(id, std::string(30 << 20, static_cast<char>('a' + i)), "hash", 1));
  const auto wait_for = [](const auto& done) {
    const auto until = std::chrono::steady_clock::now() + 20s;
    while (!done() && std::chrono::steady_clock::now() < until) std::this_thread::sleep_for(20ms);
    return done();
  };
  ASSERT_TRUE(wait_for([&] { return !writer_->health().problem.empty(); }));
  EXPECT_NE(writer_->health().problem.find("keeps its log from being emptied"), std::string::npos)
      << writer_->health().problem;
  EXPECT_GT(fs::file_size(log), 256u << 20);
  stuck.reset();
  EXPECT_TRUE(wait_for([&] { return writer_->health().problem.empty(); })) << writer_->health().problem;
  EXPECT_LT(fs::file_size(log), 1u << 20);
  EXPECT_OK(reader().check());
}

}  // namespace
}  // namespace rat
