// Linear attention on tensor cores: features, values and the states between tiles rounded to bf16, sums in f32.
#pragma once

#include <cuda_bf16.h>

#include "kernels/linear_attention/linear_attention.h"

namespace rat::kernels::gpu::linear {

// Sizes and inputs as LinearAttentionArgs has them, where they lie in f32 or in bf16; rows of bf16 start at multiples of 16
// bytes.
template <class T>
struct Call {
  int64_t tokens = 0, heads = 0, head_size = 0, shift = 0;
  Rows<const T> q, k, v;
};
template <class T>
struct Gradients {
  Rows<const T> out;
  Rows<T> q, k, v;  // added to
};

// Where LinearAttentionArgs::dtype is bf16, in heads of 64 and 128 channels. Everything else is multiplied in f32.
bool takes_tensor_cores(const LinearAttentionArgs& args);
// Some token sees another: tokens > shift. Rows before `shift` are not written.
template <class T>
Status attend_on_tensor_cores(const Call<T>& call, const Rows<T>& out);
template <class T>
Status gradients_on_tensor_cores(const Call<T>& call, const Gradients<T>& grad);

inline Call<float> call_of(const LinearAttentionArgs& a) { return {a.tokens, a.heads, a.head_size, a.shift, a.q, a.k, a.v}; }

}  // namespace rat::kernels::gpu::linear
