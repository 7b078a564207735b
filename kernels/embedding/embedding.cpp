#include "kernels/embedding/embedding.h"

namespace rat::kernels {
namespace {

Status check_ids(const char* op, std::span<const int32_t> ids, int64_t vocab) {
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= vocab)
      return fail(ErrorCode::invalid_argument, "{}: token {} at index {} is outside the vocabulary of {}", op, ids[i],
                  i, vocab);
  return ok();
}

}  // namespace

Status embedding(const EmbeddingArgs& args, const Exec& exec) {
  RAT_TRY(check_ids("embedding", args.ids, args.table.rows));
  RAT_TRY(expect_shape("embedding", "table", args.table, args.table.rows, args.table.cols));
  RAT_TRY(expect_shape("embedding", "out", args.out, static_cast<int64_t>(args.ids.size()), args.table.cols));
  return exec.run(&Backend::embedding, "embedding", args);
}

Status embedding_backward(const EmbeddingBackwardArgs& args, const Exec& exec) {
  constexpr const char* op = "embedding_backward";
  RAT_TRY(check_ids(op, args.ids, args.grad_table.rows));
  RAT_TRY(expect_shape(op, "grad_table", args.grad_table, args.grad_table.rows, args.grad_table.cols));
  RAT_TRY(expect_shape(op, "grad_out", args.grad_out, static_cast<int64_t>(args.ids.size()), args.grad_table.cols));
  if (args.grad_out_bf16 != nullptr && !exec.backend->hands_on_bf16)
    return fail(ErrorCode::unsupported, "{}: the {} backend takes gradients in f32", op, exec.backend->name);
  return exec.run(&Backend::embedding_backward, op, args);
}

}  // namespace rat::kernels
