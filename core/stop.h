// Cancelling long work: whoever runs it polls `stop_requested` between layers, so a stop takes effect within
// one layer, not one step.
#pragma once

#include <atomic>
#include <memory>

namespace rat {

class StopFlag {
 public:
  void request() { flag_->store(true, std::memory_order_release); }
  void reset() { flag_->store(false, std::memory_order_release); }
  bool requested() const { return flag_->load(std::memory_order_acquire); }

 private:
  std::shared_ptr<std::atomic<bool>> flag_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace rat
