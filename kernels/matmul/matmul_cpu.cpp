#include <dnnl.h>
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "kernels/base/parallel.h"
#include "kernels/cpu_ops.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/sgemm.h"

namespace rat::kernels::cpu {
namespace {

// Rows and columns of C that one block computes. A function of the shape alone, so that sums are always cut alike.
struct Tiles {
  int64_t rows, cols;
};

// Large tiles amortise the library's packing; at least eight of them keep several cores busy.
Tiles choose_tiles(int64_t m, int64_t n, int64_t k) {
  constexpr int64_t smallest = 128;
  const auto flops = [&](const Tiles& t) {
    return 2.0 * static_cast<double>(t.rows) * static_cast<double>(t.cols) * static_cast<double>(k);
  };
  Tiles tiles{m, n};
  // Few rows only stream the weights: sharing that between cores pays off earlier than sharing arithmetic.
  const double most = std::clamp(flops(tiles) / 8, m < 32 ? 2e6 : 3e7, 6e8);
  while (flops(tiles) > most) {
    int64_t& longer = tiles.rows >= tiles.cols ? tiles.rows : tiles.cols;
    if (longer <= smallest) break;
    longer = ((longer + 1) / 2 + 63) / 64 * 64;
  }
  return tiles;
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

Status matmul(const MatmulArgs& args) {
  const int64_t m = args.c.rows, n = args.c.cols;
  const int64_t k = args.transpose_a ? args.a.rows : args.a.cols;
  if (m == 0 || n == 0) return ok();
  const Tiles tiles = choose_tiles(m, n, k);
  const int64_t tile_cols = (n + tiles.cols - 1) / tiles.cols, tile_rows = (m + tiles.rows - 1) / tiles.rows;
  parallel_for(tile_rows * tile_cols, [&](int64_t block) {
    const int64_t i = block / tile_cols * tiles.rows, j = block % tile_cols * tiles.cols;
    const int64_t rows = std::min(tiles.rows, m - i), cols = std::min(tiles.cols, n - j);
    float* c = args.c.row(i) + j;
    for (int64_t r = 0; r < rows && (args.addend || k == 0); ++r) {
      const auto bytes = static_cast<std::size_t>(cols) * sizeof(float);
      if (args.addend)
        std::memcpy(c + r * args.c.stride, args.addend + (i + r) * n + j, bytes);
      else if (!args.accumulate)
        std::memset(c + r * args.c.stride, 0, bytes);
    }
    if (k == 0) return;
    // A transposed A of many rows (a weight's gradient) runs twice as fast in pieces that stay in the cache.
    const int64_t piece = args.transpose_a ? 512 : k;
    for (int64_t p = 0; p < k; p += piece) {
      const float* a = args.transpose_a ? args.a.row(p) + i : args.a.row(i) + p;
      const float* b = args.transpose_b ? args.b.row(j) + p : args.b.row(p) + j;
      const bool add = p > 0 || args.accumulate || args.addend;
      sgemm_on_this_thread(args.transpose_a, args.transpose_b, rows, cols, std::min(piece, k - p), 1.0f, a,
                           args.a.stride, b, args.b.stride, add ? 1.0f : 0.0f, c, args.c.stride);
    }
  });
  return ok();
}

}  // namespace rat::kernels::cpu
