#include <algorithm>

#include "kernels/base/parallel.h"
#include "kernels/cpu_ops.h"
#include "kernels/embedding/embedding.h"

namespace rat::kernels::cpu {

Status embedding(const EmbeddingArgs& args) {
  parallel_ranges(args.out.rows, rows_per_block(args.out.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::copy_n(args.table.row(args.ids[static_cast<std::size_t>(i)]), args.out.cols, args.out.row(i));
  });
  return ok();
}

// Each block owns some columns of the table and walks all tokens, so no two threads add to one element.
Status embedding_backward(const EmbeddingBackwardArgs& args) {
  parallel_ranges(args.grad_table.cols, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < args.grad_out.rows; ++i) {
      const float* grad = args.grad_out.row(i);
      float* row = args.grad_table.row(args.ids[static_cast<std::size_t>(i)]);
      for (int64_t c = begin; c < end; ++c) row[c] += grad[c];
    }
  });
  return ok();
}

}  // namespace rat::kernels::cpu
