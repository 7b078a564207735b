#include <algorithm>

#include "kernels/base/parallel.h"
#include "kernels/cpu_ops.h"
#include "kernels/gated_scan/gated_scan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gated_scan/gated_scan_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_loop.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

// Rows [begin, end) of one chunk, channels [d0, d0 + n), whose inputs are columns [w0, w0 + n).
// The state of the previous token is read back from the row just written: it is still in the first-level cache.
void ScanRows(const GatedScanArgs& a, int64_t begin, int64_t end, int64_t d0, int64_t w0, int64_t n) {
  for (int64_t t = begin; t < end; ++t) {
    const float* HWY_RESTRICT gate = a.gate.row(t) + d0;
    const float* HWY_RESTRICT input = a.input.row(t) + w0;
    const float* before = nullptr;
    if (t > begin) before = a.state.row(t - 1) + d0;
    else if (a.previous.data != nullptr && t % a.tokens == 0) before = a.previous.row(t / a.tokens) + d0;
    float* state = a.state.row(t) + d0;  // may be `before`
    for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto g = hn::LoadU(d, gate + i);
      const auto u = hn::LoadU(d, input + i);
      const auto fresh = hn::Mul(hn::Sub(hn::Set(d, 1.0f), g), u);
      hn::StoreU(before ? hn::MulAdd(g, hn::LoadU(d, before + i), fresh) : fresh, d, state + i);
    });
  }
}

// The same rows backwards. `carried` (n) holds gate[t+1] * carried[t+1] between rows; `first`: write grad_input, else
// add.
void ScanRowsBackward(const GatedScanBackwardArgs& a, int64_t begin, int64_t end, int64_t d0, int64_t w0, int64_t n,
                      bool first, float* HWY_RESTRICT carried) {
  std::fill(carried, carried + n, 0.0f);
  for (int64_t t = end - 1; t >= begin; --t) {
    const float* HWY_RESTRICT gate = a.gate.row(t) + d0;
    const float* HWY_RESTRICT input = a.input.row(t) + w0;
    const float* HWY_RESTRICT grad_state = a.grad_state.row(t) + d0;
    const float* HWY_RESTRICT before = t > begin ? a.state.row(t - 1) + d0 : nullptr;
    float* HWY_RESTRICT grad_input = a.grad_input.row(t) + w0;
    float* HWY_RESTRICT grad_gate = a.grad_gate.row(t) + d0;
    for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto g = hn::LoadU(d, gate + i);
      const auto total = hn::Add(hn::LoadU(d, grad_state + i), hn::LoadU(d, carried + i));
      const auto to_input = hn::Mul(hn::Sub(hn::Set(d, 1.0f), g), total);
      hn::StoreU(first ? to_input : hn::Add(hn::LoadU(d, grad_input + i), to_input), d, grad_input + i);
      const auto old = before ? hn::LoadU(d, before + i) : hn::Zero(d);
      const auto to_gate = hn::Mul(hn::Sub(old, hn::LoadU(d, input + i)), total);
      hn::StoreU(a.add_grad_gate ? hn::Add(hn::LoadU(d, grad_gate + i), to_gate) : to_gate, d, grad_gate + i);
      hn::StoreU(hn::Mul(g, total), d, carried + i);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace rat::kernels {
HWY_EXPORT(ScanRows);
HWY_EXPORT(ScanRowsBackward);

namespace cpu {
namespace {

constexpr int64_t block_channels = 128;

// Calls body(begin, end, w0, n) for every chunk [begin, end) of rows and input columns [w0, w0 + n). Short chunks share
// a block. All channels that read one input column are in one block, so their sum has one fixed order.
template <class Body>
void for_each_chunk(int64_t rows, int64_t tokens, int64_t chunk_len, int64_t width, const Body& body) {
  const int64_t len = std::min(chunk_len, tokens);
  const int64_t chunks = (tokens + len - 1) / len, all_chunks = rows / tokens * chunks;
  const int64_t column_blocks = (width + block_channels - 1) / block_channels;
  const int64_t chunks_per_block = std::max<int64_t>(1, 64 / len);
  const int64_t chunk_blocks = (all_chunks + chunks_per_block - 1) / chunks_per_block;
  parallel_for(chunk_blocks * column_blocks, [&](int64_t block) {
    const int64_t first = block / column_blocks * chunks_per_block, w0 = block % column_blocks * block_channels;
    for (int64_t c = first; c < std::min(first + chunks_per_block, all_chunks); ++c) {
      const int64_t sequence = c / chunks * tokens, begin = c % chunks * len;
      body(sequence + begin, sequence + std::min(begin + len, tokens), w0, std::min(block_channels, width - w0));
    }
  });
}

}  // namespace

Status gated_scan(const GatedScanArgs& args) {
  const int64_t width = args.input.cols;
  for_each_chunk(args.gate.rows, args.tokens, args.chunk_len, width,
                 [&](int64_t begin, int64_t end, int64_t w0, int64_t n) {
                   for (int64_t d0 = w0; d0 < args.gate.cols; d0 += width)
                     HWY_DYNAMIC_DISPATCH(ScanRows)(args, begin, end, d0, w0, n);
                 });
  return ok();
}

Status gated_scan_backward(const GatedScanBackwardArgs& args) {
  const int64_t width = args.input.cols;
  for_each_chunk(args.gate.rows, args.tokens, args.chunk_len, width,
                 [&](int64_t begin, int64_t end, int64_t w0, int64_t n) {
                   float carried[block_channels];
                   for (int64_t d0 = w0; d0 < args.gate.cols; d0 += width)
                     HWY_DYNAMIC_DISPATCH(ScanRowsBackward)(args, begin, end, d0, w0, n, d0 == w0, carried);
                 });
  return ok();
}

}  // namespace cpu
}  // namespace rat::kernels
#endif
