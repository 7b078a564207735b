// Operands of bf16 products as squares (kernels/matmul/bf16_tiles.h), and gradients of weights from them. CPU only,
// with AVX-512 bf16 or AMX instructions; columns are whole squares, missing rows are zeros.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matmul/panels.h"

namespace rat::kernels::cpu {

inline constexpr int64_t square_side = 32, square_elements = square_side * square_side;

// A matrix of (rows, cols) of which gradients of weights take rows as k: 8 squares of rows of one square of columns are
// neighbours, then come the other columns, so that what a product reads together lies together.
struct RowSquares {
  static constexpr int64_t together = 8;
  uint16_t* data = nullptr;
  int64_t cols = 0;

  static int64_t elements(int64_t rows, int64_t cols) {
    constexpr int64_t deep = together * square_side;
    return (rows + deep - 1) / deep * deep * cols;
  }
  // The square that begins with this row and column.
  uint16_t* at(int64_t row, int64_t col) const {
    const int64_t s = row / square_side;
    return data + s / together * together * square_side * cols +
           (col / square_side * together + s % together) * square_elements;
  }
};

// Cells [first_m, + m) x [first_n, + n) of C += A^T B: a is (rows, M), its squares hold rows of A^T; b is (rows, N), in
// pairs.
struct WeightGradient {
  RowSquares a, b;
  int64_t rows;
  float* c;  // (M, N), or (N, M) where `transposed`
  bool transposed;
  int64_t first_m, m, first_n, n;
};

// Up to 32 rows of x as squares of rows, one after another.
void rows_to_squares(const float* x, int64_t stride, int64_t rows, int64_t cols, uint16_t* out);
// The same, and the squares as pairs: row `row` and the next ones of `pairs`.
void rows_to_squares_and_pairs(const float* x, int64_t stride, int64_t rows, int64_t row, const RowSquares& pairs,
                               uint16_t* out);
// The same rows, which are row `row` and the next ones of `to`, transposed: rows of a square are columns of x.
void columns_to_squares(const float* x, int64_t stride, int64_t rows, int64_t row, const RowSquares& to);
// A panel of 32 columns of op(b), squares of pairs; b is rounded: (32, k) where `transposed`, else (k, 32).
void pack_rounded(const uint16_t* b, int64_t stride, bool transposed, int64_t k, uint16_t* out);
// c (rows, cols) = start + squares of rows, (rows / 32, k / 32), times panels of `cols` columns.
struct SquareProduct {
  const uint16_t* a;
  int64_t rows, k;
  const uint16_t* panels;
  int64_t cols;
  float* c;
  const float* start = nullptr;  // as c; null: zero; may be c
};

struct SquareKernels {
  void (*multiply)(const SquareProduct& product);
  void (*weight_gradient)(const WeightGradient& tile);
};

// Null where this CPU cannot; square_kernels: the fastest of them.
const SquareKernels* amx_squares();
const SquareKernels* avx512_bf16_squares(Avx512Products how = avx512_products());
const SquareKernels* square_kernels();

// Whole gradients, in parallel: cut into tiles by shape alone, so that no sum depends on the number of threads.
void add_weight_gradients(std::span<const WeightGradient> gradients);

}  // namespace rat::kernels::cpu
