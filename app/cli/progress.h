// Progress of long work on stderr: one line redrawn in place on a terminal, plain lines elsewhere (about one every
// 10 s or 5 %), without control characters.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

namespace rat::cli {

class Progress {
 public:
  using Clock = std::chrono::steady_clock;

  // `out` is stderr in the program, a temporary file in tests.
  Progress(std::FILE* out, bool terminal, std::string unit, int64_t done, int64_t total, Clock::time_point now);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `details` stands after the count: "loss 2.3456  12.3k tok/s".
  void update(int64_t done, const std::string& details, Clock::time_point now);
  void clear();  // so that other lines can be printed

 private:
  std::string eta(int64_t done, Clock::time_point now) const;

  std::FILE* out_;
  bool terminal_;
  std::string unit_;
  int64_t first_, total_;
  int64_t shown_ = -1;  // `done` of the last plain line
  bool drawn_ = false;
  Clock::time_point start_, last_;
};

}  // namespace rat::cli
