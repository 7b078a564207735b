// A GPU that fails in the middle of a run. A program of its own: after the fault this process has no GPU any more. Skipped
// without one.
#include <algorithm>

#include "kernels/gelu/gelu.h"
#include "tests/experiments/session_fixture.h"
#include "tests/support/device_rows.h"

namespace rat {
namespace {

class CudaFault : public Session {
 protected:
  // Reads memory that is not there: the device stops with an illegal address, as a kernel with a fault would.
  static void inject_fault(const kernels::Backend& backend) {
    auto* const nowhere = reinterpret_cast<float*>(std::uintptr_t{64});
    const kernels::Input x(nowhere, 1, 1024);
    const kernels::Output y(nowhere, 1, 1024);
    const kernels::Exec exec{.backend = &backend};
    EXPECT_OK(kernels::gelu({.x = x, .y = y}, exec));
    EXPECT_FALSE(kernels::finish(exec));
  }
};

TEST_F(CudaFault, EndsTheRunWithAReasonAndLeavesWindowAndStoreIntact) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  RunSpec spec = endless();
  spec.device = "cuda";
  spec.train.checkpoint_every = 5;
  session_->enqueue(spec);
  ASSERT_TRUE(wait_for([&] { return status()->step >= 12; })) << status()->message;
  inject_fault(*backend);
  ASSERT_TRUE(wait_for([&] { return is(SessionActivity::idle); }));
  EXPECT_NE(status()->message.find("restart of the program"), std::string::npos) << status()->message;
  const auto rows = runs();
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].state, RunState::failed);
  EXPECT_NE(rows[0].error.find("restart of the program"), std::string::npos) << rows[0].error;
  EXPECT_GE(rows[0].steps_done, 12);
  EXPECT_TRUE(std::filesystem::exists(rows[0].checkpoint)) << "the checkpoints of before are still there";

  const auto count = [&](RunState state) { return std::ranges::count(runs(), state, &RunRow::state); };
  session_->enqueue(spec);  // refused with the reason, not with a crash
  EXPECT_TRUE(wait_for([&] { return count(RunState::failed) == 2; })) << status()->message;
  session_->enqueue(tiny_spec(text_, "rat:8*2", 10));  // the session goes on where there is a device
  EXPECT_TRUE(wait_for([&] { return count(RunState::finished) == 1; })) << status()->message;
  session_.reset();  // what lies on the lost device is given back without a crash
}

}  // namespace
}  // namespace rat
