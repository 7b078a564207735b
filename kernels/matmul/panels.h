// The two inner kernels of the CPU matrix product, on the calling thread. CPU only.
//
// B (K, N) is packed into panels of `panel_cols` columns, in the order in which the kernel reads it, padded with zeros.
// Products are then computed for a block of rows against a range of panels.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"

namespace rat::kernels::cpu {

// c (rows, cols) = start + a (rows, k) times `cols` columns of B, beginning with the first column of `panels`.
struct PanelBlock {
  const float* a;
  int64_t a_stride;
  int64_t rows, k, cols;
  const void* panels;
  float* c;
  int64_t c_stride;
  const float* start;  // null: zero; may be c
  int64_t start_stride;
  bool stream = false;  // c is not read again soon: written past the caches
};

// c (m, n) = (add ? c : 0) + a^T b, where a is (k, m) and b is (k, n): the gradient of a weight.
struct OuterBlock {
  const float* a;
  int64_t a_stride;
  const float* b;
  int64_t b_stride;
  int64_t m, n, k;
  float* c;
  int64_t c_stride;
  bool add;
};

struct PanelKernels {
  int64_t (*panel_cols)();
  int64_t (*panel_bytes)(int64_t k);
  // Columns [0, cols) of op(B), cols at most panel_cols. `transposed`: b is (cols, k), else (k, cols).
  void (*pack)(const float* b, int64_t stride, bool transposed, int64_t k, int64_t cols, void* panel);
  void (*multiply)(const PanelBlock& block);
  void (*outer)(const OuterBlock& block);
  int64_t block_rows;   // of c at a time: what is written of it should stay in a core's second-level cache
  int64_t outer_cells;  // most cells of a c whose sums stay in a core's second-level cache
  int64_t outer_parts;  // into how many parts a long k is cut, so that a wide c is still work for several threads
};

const PanelKernels& f32_panels();
// How AVX-512 multiplies bf16 values: by its dot products of pairs, or by f32 multiply-adds of widened values.
enum class Avx512Products { dots, widened };
// On Intel's CPUs the latter: a dot product takes four times as long as a multiply-add, which does half as much (84
// against 167 GF/s a core, docs/benchmarks/cpu.md). Elsewhere the former, which was not measured.
Avx512Products avx512_products();

// Null where this CPU cannot: with AMX tiles, every operand as 1, 2 or 3 bf16 values; or with AVX-512's for bf16.
const PanelKernels* amx_panels(int parts);
const PanelKernels* avx512_bf16_panels(Avx512Products how = avx512_products());

}  // namespace rat::kernels::cpu
