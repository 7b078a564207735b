// Table lookup: row i of `out` is row ids[i] of `table`. Backward adds each row of grad_out to its row of grad_table.
//
// Shapes: ids (N); table, grad_table (V, D); out, grad_out (N, D). Ids outside [0, V) are an error.
// Trap: equal ids collide in backward; rows are added in order of i, so that the sum has one value.
#pragma once

#include <span>

#include "kernels/backend.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

struct EmbeddingArgs {
  std::span<const int32_t> ids;  // host memory
  Input table;
  Output out;
};

struct EmbeddingBackwardArgs {
  std::span<const int32_t> ids;  // host memory
  Input grad_out;
  Output grad_table;  // added to
  const uint16_t* grad_out_bf16 = nullptr;  // (N, D) without gaps, read instead; for a backend that hands_on_bf16
};

[[nodiscard]] Status embedding(const EmbeddingArgs& args, const Exec& exec);
[[nodiscard]] Status embedding_backward(const EmbeddingBackwardArgs& args, const Exec& exec);

}  // namespace rat::kernels
