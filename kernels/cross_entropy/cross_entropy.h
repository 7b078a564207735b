// Softmax cross-entropy of each row of logits against one target, in nats; the gradient replaces the logits.
//
//   loss[i] = log sum_v exp(logits[i,v]) - logits[i, target[i]]
//   logits[i,v] becomes grad_scale * (softmax(logits[i])[v] - [v == target[i]])      when grad_scale is not 0
//
// Shapes: logits (N, V); targets (N). A negative target is ignored: no loss, zero gradient.
// Traps:  the sums are sums, not means. Ties count as correct only when the target is the first of the largest.
#pragma once

#include <span>

#include "kernels/backend.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

struct CrossEntropySums {
  double loss = 0;
  int64_t targets = 0;  // rows that were not ignored
  int64_t correct = 0;  // of these, how many were the argmax
};

struct CrossEntropyArgs {
  Output logits;
  std::span<const int32_t> targets;  // host memory
  float grad_scale = 0;              // 0: logits are left alone
  CrossEntropySums* sums = nullptr;  // host memory, added to: the call waits for the result
};

// Ok, or which target is outside [0, vocab) and not negative, or that there are not `rows` of them.
[[nodiscard]] Status check_targets(const char* op, std::span<const int32_t> targets, int64_t rows, int64_t vocab);
[[nodiscard]] Status cross_entropy(const CrossEntropyArgs& args, const Exec& exec);

}  // namespace rat::kernels
