// Rows of keys and values from a prefill into the decode cache, as they are or in e4m3 (kernels/cuda/quantise.h).
//
//   cache[row(j)] = rows[j] for j in [first, first + count);  row(j) = j, or of a window W: j mod (W + 1)
//
// Of a dilated shape (kernels/cuda/dilated_keys.h) key j is taken from rows[its token], and row(j) = W + 1 + j.
// Shapes: keys, values: rows of each head where they lie, chunk ends or tokens; to_keys, to_values: (B, H, capacity, P).
// Refused before any launch: what check_shape refuses; more rows than the ring has (they would race).
#pragma once

#include "kernels/cuda/quantise.h"
#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

template <class C>
struct FillCacheArgs {
  RatShape shape;  // chunk_len is only used where it is the dilation
  int64_t first = 0, count = 0;
  KeyRows<const __nv_bfloat16> keys, values;
  KeyRows<C> to_keys, to_values;
  KeyRows<ushort2> scales;  // of e4m3
};

// C: bf16 or e4m3.
template <class C>
Status fill_cache(const FillCacheArgs<C>& args, cudaStream_t stream);

}  // namespace rat::kernels::cuda
