// In what precision a mixer's attention multiplies.
#pragma once

#include "core/mixer.h"
#include "kernels/range_attention/range_attention.h"

namespace rat {

// Softmax amplifies errors of scores: their products are the careful ones.
inline void set_products(const MixerPass& pass, kernels::RangeAttentionArgs& args) {
  if (pass.dtype != kernels::Dtype::bf16) return;
  args.score_dtype = pass.exec.backend->careful(pass.dtype);
  args.dtype = pass.dtype;
}

}  // namespace rat
