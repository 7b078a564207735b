#include "kernels/loss_head/loss_head.h"

namespace rat::kernels {

bool fuses_loss_head(const LossHeadShape& shape, const Exec& exec) {
  return exec.backend->fuses_loss_head != nullptr && exec.backend->fuses_loss_head(shape);
}

Status loss_head(const LossHeadArgs& args, const Exec& exec) {
  constexpr const char* op = "loss_head";
  const auto& [rows, channels, vocab] = args.shape;
  if (!fuses_loss_head(args.shape, exec))
    return fail(ErrorCode::unsupported, "{}: the {} backend does not fuse {} channels with {} tokens", op,
                exec.backend->name, channels, vocab);
  RAT_CHECK(args.head != nullptr && args.sums != nullptr, "a fused head has rounded weights and sums");
  RAT_TRY(expect_shape(op, "x", args.x, rows, channels));
  RAT_TRY(check_targets(op, args.targets, rows, vocab));
  if (args.grad_scale != 0) RAT_TRY(check_gradient(op, args.grad, rows, channels, exec.backend->hands_on_bf16));
  return exec.run(&Backend::loss_head, op, args);
}

}  // namespace rat::kernels
