// The real `rat` in a child process: arguments in, exit code and both streams out.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace rat::test {

struct Outcome {
  int exit_code = -1;  // 128 + signal when a signal ended it, as a shell reports it
  std::string out, err;
  bool timed_out = false;
};

// A child that is still running. Its streams are read in wait().
class Child {
 public:
  Child(const std::vector<std::string>& arguments, const std::string& input);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void send(int signal_number);
  // Reads until `text` was seen on stderr; false when the child ended or the time is up.
  bool wait_for_error_text(const std::string& text, std::chrono::milliseconds limit);
  Outcome wait(std::chrono::milliseconds limit = std::chrono::seconds(120));

 private:
  bool read_available(std::chrono::steady_clock::time_point until);  // false: both streams are at their end

  pid_t pid_ = -1;
  int out_ = -1, err_ = -1;
  Outcome outcome_;
};

// rat ARGUMENTS, to its end.
Outcome rat(const std::vector<std::string>& arguments, const std::string& input = "");

// An empty folder with a database path and a text file to train on; gone at the end.
class Workspace {
 public:
  Workspace();
  ~Workspace();
  std::filesystem::path path(const std::string& name) const { return folder_ / name; }
  std::string database() const { return path("runs.db").string(); }

  // rat ARGUMENTS --db DATABASE
  Outcome rat(std::vector<std::string> arguments, const std::string& input = "") const;
  // The one JSON document that `rat ARGUMENTS --json` prints; a test failure when stdout is anything else.
  nlohmann::json json(std::vector<std::string> arguments, int expected_exit_code = 0) const;
  // Arguments of a training that takes seconds at most: D 32, 2 layers, T 32.
  std::vector<std::string> tiny_training(const std::string& name, int steps) const;
  std::string train(const std::string& name, int steps = 20) const;  // returns the run id

 private:
  std::filesystem::path folder_;
};

void write_file(const std::filesystem::path& path, const std::string& bytes);
std::string read_file(const std::filesystem::path& path);

}  // namespace rat::test
