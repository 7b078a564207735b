#include "kernels/cross_entropy/cross_entropy.h"

namespace rat::kernels {

Status check_targets(const char* op, std::span<const int32_t> targets, int64_t rows, int64_t vocab) {
  if (static_cast<int64_t>(targets.size()) != rows)
    return fail(ErrorCode::shape_mismatch, "{}: there are {} targets for {} rows", op, targets.size(), rows);
  for (const int32_t target : targets)
    if (target >= vocab)
      return fail(ErrorCode::invalid_argument, "{}: target {} is outside the vocabulary of {}", op, target, vocab);
  return ok();
}

Status cross_entropy(const CrossEntropyArgs& args, const Exec& exec) {
  RAT_TRY(expect_shape("cross_entropy", "logits", args.logits, args.logits.rows, args.logits.cols));
  RAT_CHECK(args.sums != nullptr, "cross_entropy needs sums");
  RAT_TRY(check_targets("cross_entropy", args.targets, args.logits.rows, args.logits.cols));
  return exec.run(&Backend::cross_entropy, "cross_entropy", args);
}

}  // namespace rat::kernels
