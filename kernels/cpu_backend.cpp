#include "kernels/cpu_ops.h"

namespace rat::kernels {

const Backend& cpu_backend() {
  static constexpr Backend backend{
      .name = "cpu",
      .matmul_path = [](Dtype dtype) { return std::string(cpu_matmul_path(dtype)); },
      .supports = cpu_supports,
      .careful = cpu_careful,
      .host = true,
      .allocate = cpu::allocate,
      .release = cpu::release,
      .finish = cpu::finish,
      .upload = cpu::upload,
      .download = cpu::download,
      .zero = cpu::zero,
      .copy_rows = cpu::copy_rows,
      .widen = cpu::widen,
      .matmul = cpu::matmul,
      .gated_scan = cpu::gated_scan,
      .gated_scan_backward = cpu::gated_scan_backward,
      .range_attention = cpu::range_attention,
      .range_attention_backward = cpu::range_attention_backward,
      .attention_weights = cpu::attention_weights,
      .attend_one = cpu::attend_one,
      .linear_attention = cpu::linear_attention,
      .linear_attention_backward = cpu::linear_attention_backward,
      .linear_weights = cpu::linear_weights,
      .linear_absorb = cpu::linear_absorb,
      .linear_read = cpu::linear_read,
      .head_norm = cpu::head_norm,
      .head_norm_backward = cpu::head_norm_backward,
      .rms_norm = cpu::rms_norm,
      .rms_norm_backward = cpu::rms_norm_backward,
      .rope = cpu::rope,
      .gelu = cpu::gelu,
      .gelu_backward = cpu::gelu_backward,
      .sigmoid = cpu::sigmoid,
      .output_gate = cpu::output_gate,
      .output_gate_backward = cpu::output_gate_backward,
      .gate_gradient = cpu::gate_gradient,
      .cross_entropy = cpu::cross_entropy,
      .embedding = cpu::embedding,
      .embedding_backward = cpu::embedding_backward,
      .adamw = cpu::adamw,
      .round_weights = cpu::round_weights,
      .fuses_feed_forward = cpu::fuses_feed_forward,
      .feed_forward_saved = cpu::feed_forward_saved,
      .feed_forward = cpu::feed_forward,
      .feed_forward_backward = cpu::feed_forward_backward,
  };
  return backend;
}

}  // namespace rat::kernels
