#include "tests/app/cli_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace rat::test {
namespace {

using Clock = std::chrono::steady_clock;

const std::string rat_program = std::string(RAT_BINARY_DIR) + "/bin/rat";

// Small inputs only: they fit the pipe's buffer, so writing before reading cannot block.
constexpr std::size_t pipe_buffer = 60'000;

}  // namespace

Child::Child(const std::vector<std::string>& arguments, const std::string& input) {
  std::array<int, 2> in{}, out{}, err{};
  if (input.size() > pipe_buffer || pipe2(in.data(), O_CLOEXEC) || pipe2(out.data(), O_CLOEXEC) ||
      pipe2(err.data(), O_CLOEXEC))
    std::abort();
  if (write(in[1], input.data(), input.size()) != static_cast<ssize_t>(input.size())) std::abort();
  std::vector<std::string> words{rat_program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    execv(rat_program.c_str(), argv.data());
    _exit(127);
  }
  for (const int fd : {in[0], in[1], out[1], err[1]}) close(fd);
  out_ = out[0];
  err_ = err[0];
}

Child::~Child() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (out_ >= 0) close(out_);
  if (err_ >= 0) close(err_);
}

void Child::send(int signal_number) { kill(pid_, signal_number); }

bool Child::read_available(Clock::time_point until) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
  std::array<pollfd, 2> streams{pollfd{out_, POLLIN, 0}, pollfd{err_, POLLIN, 0}};
  if (poll(streams.data(), streams.size(), left > 0 ? static_cast<int>(left) : 0) <= 0) return out_ >= 0 || err_ >= 0;
  const std::array<std::pair<int*, std::string*>, 2> targets{std::pair{&out_, &outcome_.out},
                                                             std::pair{&err_, &outcome_.err}};
  for (std::size_t i = 0; i < streams.size(); ++i) {
    if (streams[i].revents == 0) continue;
    std::array<char, 4096> buffer{};
    const ssize_t count = read(streams[i].fd, buffer.data(), buffer.size());
    if (count > 0) {
      targets[i].second->append(buffer.data(), static_cast<std::size_t>(count));
    } else {
      close(*targets[i].first);
      *targets[i].first = -1;  // poll ignores negative descriptors
    }
  }
  return out_ >= 0 || err_ >= 0;
}

bool Child::wait_for_error_text(const std::string& text, std::chrono::milliseconds limit) {
  const auto until = Clock::now() + limit;
  while (outcome_.err.find(text) == std::string::npos) {
    if (Clock::now() >= until || !read_available(until)) return outcome_.err.find(text) != std::string::npos;
  }
  return true;
}

Outcome Child::wait(std::chrono::milliseconds limit) {
  const auto until = Clock::now() + limit;
  while (read_available(until)) {
    if (Clock::now() < until) continue;
    outcome_.timed_out = true;
    kill(pid_, SIGKILL);
    break;
  }
  int state = 0;
  waitpid(pid_, &state, 0);
  pid_ = -1;
  outcome_.exit_code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
  return outcome_;
}

Outcome rat(const std::vector<std::string>& arguments, const std::string& input) {
  Child child(arguments, input);
  Outcome outcome = child.wait();
  EXPECT_FALSE(outcome.timed_out) << arguments.front();
  return outcome;
}

Workspace::Workspace() {
  std::string name = (std::filesystem::temp_directory_path() / "rat-cli-XXXXXX").string();
  if (!mkdtemp(name.data())) std::abort();
  folder_ = name;
  std::string text;
  for (int i = 0; i < 400; ++i) text += "line " + std::to_string(i) + ": the rat reads one byte after another\n";
  std::filesystem::create_directory(path("texts"));
  write_file(path("texts/one.txt"), text);
  write_file(path("texts/two.txt"), text + "the end\n");
}

Workspace::~Workspace() {
  std::error_code error;
  std::filesystem::remove_all(folder_, error);
}

Outcome Workspace::rat(std::vector<std::string> arguments, const std::string& input) const {
  arguments.insert(arguments.end(), {"--db", database()});
  return test::rat(arguments, input);
}

nlohmann::json Workspace::json(std::vector<std::string> arguments, int expected_exit_code) const {
  arguments.emplace_back("--json");
  const Outcome outcome = rat(arguments);
  EXPECT_EQ(outcome.exit_code, expected_exit_code) << outcome.err;
  nlohmann::json document = nlohmann::json::parse(outcome.out, nullptr, false);
  EXPECT_FALSE(document.is_discarded()) << "stdout is not one JSON document: " << outcome.out;
  return document;
}

std::vector<std::string> Workspace::tiny_training(const std::string& name, int steps) const {
  return {"train",
          "--name",
          name,
          "--data",
          path("texts").string(),
          "--steps",
          std::to_string(steps),
          "--set",
          "model.d_model=32",
          "--set",
          "model.heads=2",
          "--set",
          "model.layers=rat:8,attention",
          "--set",
          "train.seq_len=32",
          "--set",
          "train.batch=2",
          "--set",
          "train.eval_tokens=256",
          "--set",
          "train.warmup=2"};
}

std::string Workspace::train(const std::string& name, int steps) const {
  const Outcome outcome = rat(tiny_training(name, steps));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  return outcome.out.substr(0, outcome.out.find('\n'));
}

void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace rat::test
