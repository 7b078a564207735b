#include "kernels/rat_layer/rat_layer.h"

namespace rat::kernels {
namespace {

Status check_fused(const char* op, const RatLayerShape& shape, const Exec& exec) {
  if (fuses_rat_layer(shape, exec)) return ok();
  return fail(ErrorCode::unsupported, "{}: the {} backend does not fuse heads of {} in {} channels", op,
              exec.backend->name, shape.head_size, shape.channels());
}

Status check(const char* op, const RatLayerArgs& args, const Exec& exec) {
  RAT_TRY(check_fused(op, args.shape, exec));
  RAT_CHECK(args.in_proj != nullptr && args.out_proj != nullptr && args.saved != nullptr,
            "a fused layer has rounded weights and memory for what it saves");
  return expect_shape(op, "x", args.x, args.shape.rows(), args.shape.channels());
}

Status check_cache(const char* op, const RatLayerShape& shape, const RatLayerCache& cache) {
  RAT_CHECK(cache.keys != nullptr && cache.values != nullptr && cache.state_k != nullptr && cache.state_v != nullptr &&
                cache.position != nullptr && cache.workspace != nullptr,
            "a cache of a fused layer has all its memory");
  RAT_CHECK(cache.dtype == CacheDtype::bf16 || (cache.dtype == CacheDtype::fp8 && cache.scales != nullptr),
            "a cache of a fused layer is bf16, or fp8 with scales");
  if (cache.capacity > shape.tokens / shape.chunk_len) return ok();
  return fail(ErrorCode::shape_mismatch, "{}: a cache of {} chunks has no room for {} tokens in chunks of {}", op,
              cache.capacity, shape.tokens, shape.chunk_len);
}

}  // namespace

bool fuses_rat_layer(const RatLayerShape& shape, const Exec& exec) {
  return exec.backend->fuses_rat_layer != nullptr && exec.backend->fuses_rat_layer(shape);
}

std::size_t rat_layer_saved(const RatLayerShape& shape, const Exec& exec) {
  return exec.backend->rat_layer_saved(shape);
}

Status rat_layer(const RatLayerArgs& args, const Exec& exec) {
  RAT_TRY(check("rat_layer", args, exec));
  RAT_TRY(expect_shape("rat_layer", "y", args.y, args.shape.rows(), args.shape.channels()));
  if (args.cache.capacity > 0) RAT_TRY(check_cache("rat_layer", args.shape, args.cache));
  return exec.run(&Backend::rat_layer, "rat_layer", args);
}

Status rat_layer_backward(const RatLayerBackwardArgs& args, const Exec& exec) {
  RAT_TRY(check("rat_layer_backward", args.forward, exec));
  RAT_TRY(check_gradient("rat_layer_backward", args.grad, args.forward.shape.rows(), args.forward.shape.channels()));
  return exec.run(&Backend::rat_layer_backward, "rat_layer_backward", args);
}

std::size_t rat_layer_step_workspace(const RatLayerShape& shape, int64_t capacity, const Exec& exec) {
  return exec.backend->rat_layer_step_workspace(shape, capacity);
}

Status rat_layer_step(const RatLayerStepArgs& args, const Exec& exec) {
  constexpr const char* op = "rat_layer_step";
  if (args.shape.tokens != 1)
    return fail(ErrorCode::shape_mismatch, "{}: a step takes one token of each sequence, not {}", op,
                args.shape.tokens);
  RAT_TRY(check_fused(op, args.shape, exec));
  RAT_CHECK(args.in_proj != nullptr && args.out_proj != nullptr, "a fused layer has rounded weights");
  RAT_TRY(check_cache(op, args.shape, args.cache));
  RAT_TRY(expect_shape(op, "x", args.x, args.shape.batch, args.shape.channels()));
  RAT_TRY(expect_shape(op, "y", args.y, args.shape.batch, args.shape.channels()));
  return exec.run(&Backend::rat_layer_step, op, args);
}

}  // namespace rat::kernels
