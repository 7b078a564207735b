// Wall time per kind of operation, as the Throughput view and `rat bench` report it.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace rat {

enum class Op : uint8_t { embedding, norm, gemm, scan, attention, gelu, cross_entropy, optimizer, probes, data, feed_forward, count };

inline constexpr std::array<std::string_view, static_cast<std::size_t>(Op::count)> op_names{
    "embedding", "norm", "gemm", "scan", "attention", "gelu", "cross entropy", "optimizer", "probes", "data", "feed-forward"};

struct OpTimes {
  std::array<double, static_cast<std::size_t>(Op::count)> ms{};

  double& operator[](Op op) { return ms[static_cast<std::size_t>(op)]; }
  double operator[](Op op) const { return ms[static_cast<std::size_t>(op)]; }
  double total_ms() const {
    double sum = 0;
    for (const double one : ms) sum += one;
    return sum;
  }
};

// Adds the time of its scope to one op. A null `times` costs nothing.
class OpTimer {
 public:
  OpTimer(OpTimes* times, Op op) : times_(times), op_(op) {
    if (times_) start_ = Clock::now();
  }
  ~OpTimer() {
    if (times_) (*times_)[op_] += std::chrono::duration<double, std::milli>(Clock::now() - start_).count();
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  OpTimes* times_;
  Op op_;
  Clock::time_point start_;
};

}  // namespace rat
