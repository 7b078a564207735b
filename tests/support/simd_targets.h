// Runs a test body once per SIMD instruction set that this machine and build support.
#pragma once

#include <gtest/gtest.h>
#include <hwy/highway.h>

namespace rat::test {

template <class Body>
void for_each_simd_target(const Body& body) {
  int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  ASSERT_NE(targets, 0);
  while (targets != 0) {
    const int64_t target = targets & -targets;
    targets &= targets - 1;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(hwy::TargetName(target));
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace rat::test
