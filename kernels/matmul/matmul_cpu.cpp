#include <dnnl.h>
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "kernels/base/parallel.h"
#include "kernels/base/scratch.h"
#include "kernels/cpu_ops.h"
#include "kernels/matmul/few_rows.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/packed_matrix.h"
#include "kernels/matmul/panels.h"
#include "kernels/matmul/sgemm.h"

namespace rat::kernels::cpu {
namespace {

// Fewer rows than this are multiplied as they lie: packing B would cost more than the product. With the matrix unit the
// product costs less; and a caller may have packed already.
int64_t few_rows(const MatmulArgs& args) { return args.dtype == Dtype::bf16 || args.packed_b != nullptr ? 8 : 24; }

int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Where C starts: the addend, what C holds, or nothing.
struct Start {
  const float* data;
  int64_t stride;
};

Start start_of(const MatmulArgs& args) {
  if (args.addend) return {args.addend, args.c.cols};
  if (args.accumulate) return {args.c.data, args.c.stride};
  return {nullptr, 0};
}

void copy_start(const MatmulArgs& args) {
  const auto bytes = static_cast<std::size_t>(args.c.cols) * sizeof(float);
  for (int64_t i = 0; i < args.c.rows && !args.accumulate; ++i) {
    if (args.addend)
      std::memcpy(args.c.row(i), args.addend + i * args.c.cols, bytes);
    else
      std::memset(args.c.row(i), 0, bytes);
  }
}

// C (M, N) = start + A op(B): B is packed once, then blocks of rows (and of panels, when rows are few) are independent.
Status multiply(const MatmulArgs& args, const PanelKernels& kernels) {
  static thread_local PackedMatrix storage;  // of the caller; the blocks read it
  if (args.packed_b == nullptr) RAT_TRY(storage.pack(args.b, args.transpose_b, args.dtype));
  const PackedMatrix& packed = args.packed_b ? *args.packed_b : storage;
  const int64_t m = args.c.rows, n = args.c.cols, k = args.a.cols, width = packed.panel_cols();
  const int64_t panels = pieces(n, width);
  constexpr int64_t most_blocks = 8;
  const int64_t block_rows = kernels.block_rows;
  const int64_t row_blocks = pieces(m, block_rows);
  // With b packed by the caller, the caller shares out the rows.
  const bool share = args.packed_b == nullptr && m * n * k >= int64_t{1} << 20;
  const int64_t groups = share ? std::clamp(most_blocks / row_blocks, int64_t{1}, pieces(panels, 4)) : 1;
  const int64_t group_cols = pieces(panels, groups) * width;
  const Start start = start_of(args);
  constexpr int64_t beyond_caches = int64_t{1} << 21;  // cells of C
  const bool stream = share && m * n >= beyond_caches;
  const auto block = [&](int64_t i, int64_t j) {
    kernels.multiply({.a = args.a.row(i),
                      .a_stride = args.a.stride,
                      .rows = std::min(block_rows, m - i),
                      .k = k,
                      .cols = std::min(group_cols, n - j),
                      .panels = packed.panel(j),
                      .c = args.c.row(i) + j,
                      .c_stride = args.c.stride,
                      .start = start.data ? start.data + i * start.stride + j : nullptr,
                      .start_stride = start.stride,
                      .stream = stream});
  };
  const int64_t column_blocks = pieces(n, group_cols);
  parallel_ranges(row_blocks * column_blocks, share ? 1 : row_blocks * column_blocks, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) block(b / column_blocks * block_rows, b % column_blocks * group_cols);
  });
  return ok();
}

// How C = A^T B is cut: into tiles, and K into parts whose sums are added in order. The same for any number of threads.
struct OuterPlan {
  int64_t rows, cols, parts, depth;

  OuterPlan(int64_t m, int64_t n, int64_t k, const PanelKernels& kernels) : rows(m), cols(n) {
    constexpr int64_t smallest = 128, enough = 4, long_part = 1024;
    parts = std::clamp<int64_t>(k / long_part, 1, kernels.outer_parts);
    depth = pieces(pieces(k, parts), 32) * 32;
    while (rows * cols > kernels.outer_cells || pieces(m, rows) * pieces(n, cols) * parts < enough) {
      int64_t& longer = rows >= cols ? rows : cols;
      if (longer <= smallest) break;
      longer = pieces(pieces(longer, 2), 32) * 32;
    }
  }
};

// C (M, N) = start + A^T B. The first part of K is added to C itself, the others to sums of their own and then to C.
void outer(const MatmulArgs& args, const PanelKernels& kernels) {
  static thread_local Scratch storage;  // of the caller; the blocks write to it
  const int64_t m = args.c.rows, n = args.c.cols, k = args.a.rows;
  const OuterPlan plan(m, n, k, kernels);
  float* const sums = plan.parts > 1 ? storage.ensure<float>((plan.parts - 1) * m * n) : nullptr;
  if (args.addend) copy_start(args);
  const int64_t column_tiles = pieces(n, plan.cols), tiles = pieces(m, plan.rows) * column_tiles;
  parallel_for(tiles * plan.parts, [&](int64_t task) {
    const int64_t tile = task / plan.parts, part = task % plan.parts, first = part * plan.depth;
    const int64_t i = tile / column_tiles * plan.rows, j = tile % column_tiles * plan.cols;
    float* const own = part > 0 ? sums + ((part - 1) * m + i) * n + j : nullptr;
    kernels.outer({.a = args.a.row(first) + i,
                   .a_stride = args.a.stride,
                   .b = args.b.row(first) + j,
                   .b_stride = args.b.stride,
                   .m = std::min(plan.rows, m - i),
                   .n = std::min(plan.cols, n - j),
                   .k = std::min(plan.depth, k - first),
                   .c = part == 0 ? args.c.row(i) + j : own,
                   .c_stride = part == 0 ? args.c.stride : n,
                   .add = part == 0 && (args.accumulate || args.addend != nullptr)});
  });
  parallel_ranges(plan.parts > 1 ? m : 0, 64, [&](int64_t begin, int64_t end) {
    for (int64_t part = 1; part < plan.parts; ++part)
      for (int64_t i = begin; i < end; ++i) {
        const float* from = sums + ((part - 1) * m + i) * n;
        float* to = args.c.row(i);
        for (int64_t j = 0; j < n; ++j) to[j] += from[j];
      }
  });
}

Result<const PanelKernels*> kernels_for(Dtype dtype) {
  if (dtype == Dtype::f32) return &f32_panels();
  RAT_TRY(cpu_supports(dtype));
  if (dtype == Dtype::bf16x6) return amx_panels(3);
  if (dtype == Dtype::bf16x3) return amx_panels(2);
  return amx_panels(1) ? amx_panels(1) : avx512_bf16_panels();
}

}  // namespace

void sgemm_on_this_thread(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                          const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  // The library would start an OpenMP team per calling thread; our pool is the only source of threads.
  thread_local const bool single = (omp_set_num_threads(1), true);
  (void)single;
  const dnnl_status_t status =
      dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  RAT_CHECK(status == dnnl_success,
            fmt::format("dnnl_sgemm {} x {} x {} returned {}", m, n, k, static_cast<int>(status)));
}

void gemm_on_this_thread(Dtype dtype, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                         const float* a, int64_t lda, const float* b, int64_t ldb, bool add, float* c, int64_t ldc) {
  if (dtype == Dtype::f32)
    return sgemm_on_this_thread(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, add ? 1.0f : 0.0f, c, ldc);
  const auto kernels = kernels_for(dtype);
  RAT_CHECK(bool(kernels), "a dtype is checked before products are cut into blocks");
  RAT_CHECK(!transpose_a || alpha == 1.0f, "a transposed operand is not scaled");
  if (transpose_a) return (*kernels)->outer({a, lda, b, ldb, m, n, k, c, ldc, add});
  static thread_local Scratch packed, scaled;
  const int64_t width = (*kernels)->panel_cols(), bytes = (*kernels)->panel_bytes(k);
  auto* const panels = packed.ensure<std::byte>(pieces(n, width) * bytes);
  for (int64_t j = 0; j < n; j += width)
    (*kernels)->pack(transpose_b ? b + j * ldb : b + j, ldb, transpose_b, k, std::min(width, n - j),
                     panels + j / width * bytes);
  if (alpha != 1.0f) {
    float* const copy = scaled.ensure<float>(m * k);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < k; ++j) copy[i * k + j] = alpha * a[i * lda + j];
    a = copy, lda = k;
  }
  (*kernels)->multiply({.a = a,
                        .a_stride = lda,
                        .rows = m,
                        .k = k,
                        .cols = n,
                        .panels = panels,
                        .c = c,
                        .c_stride = ldc,
                        .start = add ? c : nullptr,
                        .start_stride = ldc});
}

Status matmul(const MatmulArgs& args) {
  const int64_t m = args.c.rows, n = args.c.cols;
  const int64_t k = args.transpose_a ? args.a.rows : args.a.cols;
  if (m == 0 || n == 0) return ok();
  if (k == 0) {
    copy_start(args);
    return ok();
  }
  RAT_ASSIGN(const PanelKernels* kernels, kernels_for(args.dtype));
  if (args.transpose_a && args.transpose_b) {  // no model needs it: the library's own, as one piece
    if (args.dtype != Dtype::f32)
      return fail(ErrorCode::unsupported, "matmul: two transposed operands are multiplied in f32 only, not {}",
                  dtype_name(args.dtype));
    copy_start(args);
    sgemm_on_this_thread(true, true, m, n, k, 1.0f, args.a.data, args.a.stride, args.b.data, args.b.stride, 1.0f,
                         args.c.data, args.c.stride);
  } else if (args.transpose_a) {
    outer(args, *kernels);
  } else if (m < few_rows(args) && args.transpose_b && args.dtype != Dtype::bf16) {
    multiply_few_rows(args);  // in f32, which the dtypes in parts approximate: reading the weights takes the time
  } else if (m < few_rows(args) && args.transpose_b && args.b_bf16 != nullptr) {
    multiply_few_rows_bf16(args);
  } else {
    return multiply(args, *kernels);
  }
  return ok();
}

}  // namespace rat::kernels::cpu

namespace rat::kernels {

Status PackedMatrix::pack(const Input& b, bool transpose, Dtype dtype) {
  RAT_ASSIGN(const cpu::PanelKernels* kernels, cpu::kernels_for(dtype));
  k_ = transpose ? b.cols : b.rows;
  n_ = transpose ? b.rows : b.cols;
  dtype_ = dtype;
  panel_cols_ = kernels->panel_cols();
  panel_bytes_ = kernels->panel_bytes(k_);
  const int64_t panels = cpu::pieces(n_, panel_cols_);
  auto* const data = memory_.ensure<std::byte>(panels * panel_bytes_);
  data_ = data;
  const int64_t at_once = std::max<int64_t>(1, (int64_t{1} << 16) / std::max<int64_t>(1, k_ * panel_cols_));
  parallel_ranges(panels, at_once, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t first = p * panel_cols_;
      kernels->pack(transpose ? b.row(first) : b.data + first, b.stride, transpose, k_, std::min(panel_cols_, n_ - first),
                    data + p * panel_bytes_);
    }
  });
  return ok();
}

const std::byte* PackedMatrix::panel(int64_t column) const { return data_ + column / panel_cols_ * panel_bytes_; }

Status cpu::round_weights(const RoundWeightsArgs& args) {
  RAT_TRY(cpu_supports(Dtype::bf16));
  parallel_ranges(static_cast<int64_t>(args.x.size()), int64_t{1} << 16, [&](int64_t begin, int64_t end) {
    cpu::round_to_bf16(args.x.data() + begin, end - begin, args.out.data() + begin);
  });
  return ok();
}

}  // namespace rat::kernels
