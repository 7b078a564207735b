// Time per kind of operation, as the Throughput view and `rat bench` report it: wall time on the host; on a device, the
// time between two events in its stream, known only once settle() was called.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/backend.h"

namespace rat {

enum class Op : uint8_t { embedding, norm, gemm, scan, attention, gelu, cross_entropy, optimizer, probes, data, feed_forward, count };

inline constexpr std::array<std::string_view, static_cast<std::size_t>(Op::count)> op_names{
    "embedding", "norm", "gemm", "scan", "attention", "gelu", "cross entropy", "optimizer", "probes", "data", "feed-forward"};

struct OpTimes {
  struct Span {  // between two marks of the device
    Op op;
    int begin, end;
  };
  std::array<double, static_cast<std::size_t>(Op::count)> ms{};
  const kernels::Backend* device = nullptr;  // set by a pass that runs on one
  std::vector<Span> pending;

  double& operator[](Op op) { return ms[static_cast<std::size_t>(op)]; }
  double operator[](Op op) const { return ms[static_cast<std::size_t>(op)]; }
  double total_ms() const {
    double sum = 0;
    for (const double one : ms) sum += one;
    return sum;
  }
  // Waits for the device and takes its times over.
  void settle() {
    if (device == nullptr) return;
    for (const Span& span : pending) (*this)[span.op] += device->ms_between(span.begin, span.end);
    pending.clear();
    device->forget_marks();
  }
};

// Adds the time of its scope to one op. A null `times` costs nothing.
class OpTimer {
 public:
  OpTimer(OpTimes* times, Op op) : times_(times), op_(op) {
    if (times_ == nullptr) return;
    start_ = Clock::now();
    device_ = times_->device;
    if (device_ != nullptr) mark_ = device_->mark();
  }
  ~OpTimer() {
    if (times_ == nullptr) return;
    if (device_ != nullptr)
      times_->pending.push_back({op_, mark_, device_->mark()});
    else
      (*times_)[op_] += std::chrono::duration<double, std::milli>(Clock::now() - start_).count();
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  OpTimes* times_;
  Op op_;
  Clock::time_point start_;
  const kernels::Backend* device_ = nullptr;
  int mark_ = 0;
};

}  // namespace rat
