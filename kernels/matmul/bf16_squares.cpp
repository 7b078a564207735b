#include "kernels/matmul/bf16_squares.h"

#include <algorithm>

#include "kernels/base/parallel.h"

namespace rat::kernels::cpu {
namespace {

int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Tiles whose sums stay in a core's second-level cache, and enough of them for several cores.
struct Tiles {
  int64_t m = 512, n = 256;

  int64_t of(const WeightGradient& g) const { return pieces(g.m, m) * pieces(g.n, n); }
  explicit Tiles(std::span<const WeightGradient> gradients) {
    constexpr int64_t enough = 8, smallest = 64;
    const auto all = [&] {
      int64_t sum = 0;
      for (const WeightGradient& g : gradients) sum += of(g);
      return sum;
    };
    while (all() < enough && m > smallest) (m >= 2 * n ? m : n) /= 2;
  }
};

}  // namespace

const SquareKernels* square_kernels() { return amx_squares() ? amx_squares() : avx512_bf16_squares(); }

void add_weight_gradients(std::span<const WeightGradient> gradients) {
  const Tiles tiles(gradients);
  int64_t all = 0;
  for (const WeightGradient& g : gradients) all += tiles.of(g);
  parallel_for(all, [&](int64_t i) {
    std::size_t which = 0;
    for (; i >= tiles.of(gradients[which]); ++which) i -= tiles.of(gradients[which]);
    WeightGradient tile = gradients[which];
    const int64_t across = pieces(tile.m, tiles.m), m = i % across * tiles.m, n = i / across * tiles.n;
    tile.first_m += m, tile.m = std::min(tiles.m, tile.m - m);
    tile.first_n += n, tile.n = std::min(tiles.n, tile.n - n);
    square_kernels()->weight_gradient(tile);
  });
}

}  // namespace rat::kernels::cpu
