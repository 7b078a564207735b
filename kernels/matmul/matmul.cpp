#include "kernels/matmul/matmul.h"

#include "kernels/matmul/packed_matrix.h"

namespace rat::kernels {

Status matmul(const MatmulArgs& args, const Exec& exec) {
  const int64_t m = args.transpose_a ? args.a.cols : args.a.rows;
  const int64_t k = args.transpose_a ? args.a.rows : args.a.cols;
  const int64_t n = args.transpose_b ? args.b.rows : args.b.cols;
  const int64_t k_of_b = args.transpose_b ? args.b.cols : args.b.rows;
  if (k != k_of_b)
    return fail(ErrorCode::shape_mismatch, "matmul: a {}{} and b {}{} do not share an inner size", shape_text(args.a),
                args.transpose_a ? " transposed" : "", shape_text(args.b), args.transpose_b ? " transposed" : "");
  RAT_TRY(expect_shape("matmul", "a", args.a, args.a.rows, args.a.cols));
  RAT_TRY(expect_shape("matmul", "b", args.b, args.b.rows, args.b.cols));
  RAT_TRY(expect_shape("matmul", "c", args.c, m, n));
  if (args.accumulate && args.addend)
    return fail(ErrorCode::invalid_argument, "matmul: accumulate and addend exclude each other");
  if (args.packed_b && (args.packed_b->k() != k || args.packed_b->n() != n || args.packed_b->dtype() != args.dtype ||
                        args.transpose_a))
    return fail(ErrorCode::shape_mismatch, "matmul: the packed b is ({}, {}) in {}, but ({}, {}) in {} is needed",
                args.packed_b->k(), args.packed_b->n(), dtype_name(args.packed_b->dtype()), k, n,
                dtype_name(args.dtype));
  return exec.run(&Backend::matmul, "matmul", args);
}

Status round_weights(const RoundWeightsArgs& args, const Exec& exec) {
  RAT_CHECK(args.x.size() == args.out.size(), "rounding keeps the number of weights");
  return exec.run(&Backend::round_weights, "round_weights", args);
}

}  // namespace rat::kernels
