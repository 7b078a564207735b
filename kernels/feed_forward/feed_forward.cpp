#include "kernels/feed_forward/feed_forward.h"

#include "kernels/fused_layer.h"

namespace rat::kernels {
namespace {

Status check(const char* op, const FeedForwardArgs& args, const Exec& exec) {
  if (!fuses_feed_forward(args.shape, exec))
    return fail(ErrorCode::unsupported, "{}: the {} backend does not fuse {} channels with {} hidden ones", op,
                exec.backend->name, args.shape.channels, args.shape.hidden);
  RAT_CHECK(args.fc1 != nullptr && args.fc2 != nullptr && args.saved != nullptr,
            "a fused feed-forward has rounded weights and memory for what it saves");
  return expect_shape(op, "x", args.x, args.shape.rows, args.shape.channels);
}

}  // namespace

bool fuses_feed_forward(const FeedForwardShape& shape, const Exec& exec) {
  return exec.backend->fuses_feed_forward != nullptr && exec.backend->fuses_feed_forward(shape);
}

std::size_t feed_forward_saved(const FeedForwardShape& shape, const Exec& exec) {
  return exec.backend->feed_forward_saved(shape);
}

Status feed_forward(const FeedForwardArgs& args, const Exec& exec) {
  RAT_TRY(check("feed_forward", args, exec));
  RAT_TRY(expect_shape("feed_forward", "y", args.y, args.shape.rows, args.shape.channels));
  return exec.run(&Backend::feed_forward, "feed_forward", args);
}

Status feed_forward_backward(const FeedForwardBackwardArgs& args, const Exec& exec) {
  RAT_TRY(check("feed_forward_backward", args.forward, exec));
  const FeedForwardShape& s = args.forward.shape;
  RAT_TRY(check_handed_on("feed_forward_backward", args.grad, s.rows, s.channels, exec));
  return exec.run(&Backend::feed_forward_backward, "feed_forward_backward", args);
}

}  // namespace rat::kernels
