#include "kernels/cross_entropy/cross_entropy.h"

namespace rat::kernels {

Status cross_entropy(const CrossEntropyArgs& args, const Exec& exec) {
  RAT_TRY(expect_shape("cross_entropy", "logits", args.logits, static_cast<int64_t>(args.targets.size()),
                       args.logits.cols));
  RAT_CHECK(args.sums != nullptr, "cross_entropy needs sums");
  for (const int32_t target : args.targets)
    if (target >= args.logits.cols)
      return fail(ErrorCode::invalid_argument, "cross_entropy: target {} is outside the vocabulary of {}", target,
                  args.logits.cols);
  return exec.run(&Backend::cross_entropy, "cross_entropy", args);
}

}  // namespace rat::kernels
