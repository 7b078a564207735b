#include "kernels/layer_step/layer_step.h"

namespace rat::kernels {

std::size_t layer_step_workspace(const LayerStepShape& shape, int64_t capacity, const Exec& exec) {
  return exec.backend->layer_step_workspace(shape, capacity);
}

Status check_cache(const char* op, const LayerStepShape& shape, const LayerCache& cache, int64_t tokens) {
  RAT_CHECK(cache.position != nullptr && cache.workspace != nullptr &&
                (!shape.keeps_rows() || (cache.keys != nullptr && cache.values != nullptr)) &&
                (!shape.linear || cache.sums != nullptr),
            "a cache of a fused layer has all its memory");
  RAT_CHECK((shape.states() < 2 || cache.state_k != nullptr) && (shape.states() < 1 || cache.state_v != nullptr),
            "it has running states");
  RAT_CHECK(cache.dtype == CacheDtype::bf16 || (cache.dtype == CacheDtype::fp8 && cache.scales != nullptr),
            "a cache of a fused layer is bf16, or fp8 with scales");
  if (cache.capacity >= shape.rows_at(tokens) && cache.angles > tokens / shape.chunk_len) return ok();
  return fail(ErrorCode::shape_mismatch,
              "{}: a cache of {} rows and {} angles has no room for {} tokens in chunks of {}", op, cache.capacity,
              cache.angles, tokens, shape.chunk_len);
}

Status layer_step(const LayerStepArgs& args, const Exec& exec) {
  constexpr const char* op = "layer_step";
  if (exec.backend->layer_step == nullptr)
    return fail(ErrorCode::unsupported, "{}: the {} backend does not fuse layers", op, exec.backend->name);
  RAT_CHECK(args.in_proj != nullptr && args.out_proj != nullptr, "a fused layer has rounded weights");
  RAT_TRY(check_cache(op, args.shape, args.cache, 0));
  RAT_TRY(expect_shape(op, "x", args.x, args.shape.batch, args.shape.channels()));
  RAT_TRY(expect_shape(op, "y", args.y, args.shape.batch, args.shape.channels()));
  return exec.run(&Backend::layer_step, op, args);
}

}  // namespace rat::kernels
