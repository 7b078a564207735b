// One thread walks one channel of a segment of a chunk. Chunks of more than 128 tokens are cut into segments that run
// in parallel: first what each segment does to the state that enters it (a factor and an addend), then the entering states
// in order, then the segments themselves.
#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda_ops.h"
#include "kernels/gated_scan/gated_scan.h"

namespace rat::kernels::gpu {
namespace {

constexpr int threads = 128;
constexpr int64_t longest_walk = 128;

// How sequences are cut: chunks, and segments of chunks.
struct Cut {
  int64_t tokens, chunk_len, sequences, chunks, segment_len, segments;  // chunks a sequence, segments a chunk

  Cut(int64_t rows, int64_t tokens_, int64_t chunk)
      : tokens(tokens_), chunk_len(std::min(chunk, tokens_)), sequences(rows / tokens_) {
    chunks = (tokens + chunk_len - 1) / chunk_len;
    segment_len = std::min(chunk_len, longest_walk);
    segments = (chunk_len + segment_len - 1) / segment_len;
  }
  constexpr int64_t all() const { return sequences * chunks * segments; }
};

// Rows [begin, end) of segment `index`; empty behind the end of a short last chunk.
struct Span {
  int64_t begin, end;
  bool starts_chunk, ends_chunk, starts_sequence;
  int64_t sequence;

  __device__ Span(const Cut& cut, int64_t index) {
    const int64_t segment = index % cut.segments, chunk = index / cut.segments % cut.chunks;
    sequence = index / cut.segments / cut.chunks;
    const int64_t first = sequence * cut.tokens, chunk_begin = chunk * cut.chunk_len;
    const int64_t chunk_end = min(chunk_begin + cut.chunk_len, cut.tokens);
    const int64_t from = min(chunk_begin + segment * cut.segment_len, chunk_end);
    const int64_t to = min(from + cut.segment_len, chunk_end);
    begin = first + from;
    end = first + to;
    starts_chunk = segment == 0;
    ends_chunk = to == chunk_end;
    starts_sequence = starts_chunk && chunk == 0;
  }
};

// (segment, channel) of this thread; channels run fastest.
__device__ bool place(int64_t segments, int64_t channels, int64_t& segment, int64_t& d) {
  const int64_t at = int64_t{blockIdx.x} * threads + threadIdx.x;
  segment = at / channels;
  d = at % channels;
  return segment < segments;
}

__global__ void summarise(Input gate, Input input, Cut cut, float* factor, float* addend) {
  int64_t index, d;
  if (!place(cut.all(), gate.cols, index, d)) return;
  const Span span(cut, index);
  const int64_t w = d % input.cols;
  float product = 1.0f, state = 0.0f;
  for (int64_t t = span.begin; t < span.end; ++t) {
    const float g = gate.row(t)[d];
    state = g * state + (1.0f - g) * input.row(t)[w];
    product *= g;
  }
  factor[index * gate.cols + d] = product;
  addend[index * gate.cols + d] = state;
}

// addend becomes the state that enters each segment.
__global__ void enter(Cut cut, int64_t channels, Input previous, const float* factor, float* addend) {
  int64_t chunk, d;
  if (!place(cut.sequences * cut.chunks, channels, chunk, d)) return;
  float state = previous.data != nullptr && chunk % cut.chunks == 0 ? previous.row(chunk / cut.chunks)[d] : 0.0f;
  for (int64_t s = 0; s < cut.segments; ++s) {
    const int64_t at = (chunk * cut.segments + s) * channels + d;
    const float entering = state;
    state = factor[at] * state + addend[at];
    addend[at] = entering;
  }
}

__global__ void walk(GatedScanArgs a, Cut cut, const float* entering) {
  int64_t index, d;
  if (!place(cut.all(), a.gate.cols, index, d)) return;
  const Span span(cut, index);
  const int64_t w = d % a.input.cols;
  float state = 0.0f;
  if (entering != nullptr) state = entering[index * a.gate.cols + d];
  else if (span.starts_sequence && a.previous.data != nullptr) state = a.previous.row(span.sequence)[d];
  for (int64_t t = span.begin; t < span.end; ++t) {
    const float g = a.gate.row(t)[d];
    state = g * state + (1.0f - g) * a.input.row(t)[w];
    a.state.row(t)[d] = state;
  }
}

__global__ void summarise_backward(Input gate, Input grad_state, Cut cut, float* factor, float* addend) {
  int64_t index, d;
  if (!place(cut.all(), gate.cols, index, d)) return;
  const Span span(cut, index);
  float product = 1.0f, carried = 0.0f;  // gate[t+1] carried[t+1]
  for (int64_t t = span.end; t-- > span.begin;) {
    const float g = gate.row(t)[d];
    carried = g * (grad_state.row(t)[d] + carried);
    product *= g;
  }
  factor[index * gate.cols + d] = product;
  addend[index * gate.cols + d] = carried;
}

// addend becomes what is carried into the end of each segment.
__global__ void enter_backward(Cut cut, int64_t channels, const float* factor, float* addend) {
  int64_t chunk, d;
  if (!place(cut.sequences * cut.chunks, channels, chunk, d)) return;
  float carried = 0.0f;
  for (int64_t s = cut.segments; s-- > 0;) {
    const int64_t at = (chunk * cut.segments + s) * channels + d;
    const float entering = carried;
    carried = factor[at] * carried + addend[at];
    addend[at] = entering;
  }
}

// One thread per input column: the channels that read it follow one another, so that their sum needs no atomics.
__global__ void walk_backward(GatedScanBackwardArgs a, Cut cut, const float* entering) {
  int64_t index, w;
  const int64_t width = a.input.cols;
  if (!place(cut.all(), width, index, w)) return;
  const Span span(cut, index);
  for (int64_t d = w; d < a.gate.cols; d += width) {
    float carried = entering != nullptr ? entering[index * a.gate.cols + d] : 0.0f;
    for (int64_t t = span.end; t-- > span.begin;) {
      const float g = a.gate.row(t)[d], total = a.grad_state.row(t)[d] + carried;
      const float before = t == span.begin && span.starts_chunk ? 0.0f : a.state.row(t - 1)[d];
      const float to_gate = (before - a.input.row(t)[w]) * total, to_input = (1.0f - g) * total;
      float &grad_gate = a.grad_gate.row(t)[d], &grad_input = a.grad_input.row(t)[w];
      grad_gate = a.add_grad_gate ? grad_gate + to_gate : to_gate;
      grad_input = d == w ? to_input : grad_input + to_input;
      carried = g * total;
    }
  }
}

struct Segments {
  float *factor = nullptr, *entering = nullptr;
};

// Room for what enters the segments; none where chunks are not cut.
Result<Segments> segments_of(const Cut& cut, int64_t channels) {
  if (cut.segments == 1) return Segments{};
  RAT_ASSIGN(float* const factor, scratch<float>(0, cut.all() * channels));
  RAT_ASSIGN(float* const entering, scratch<float>(1, cut.all() * channels));
  return Segments{factor, entering};
}

}  // namespace

Status gated_scan(const GatedScanArgs& args) {
  if (args.gate.rows * args.gate.cols == 0) return ok();
  const Cut cut(args.gate.rows, args.tokens, args.chunk_len);
  const int64_t channels = args.gate.cols;
  RAT_ASSIGN(const Segments segments, segments_of(cut, channels));
  const unsigned blocks = blocks_for(cut.all() * channels, threads);
  if (segments.factor != nullptr) {
    summarise<<<blocks, threads, 0, stream()>>>(args.gate, args.input, cut, segments.factor, segments.entering);
    RAT_TRY(launched("gated_scan"));
    enter<<<blocks_for(cut.sequences * cut.chunks * channels, threads), threads, 0, stream()>>>(
        cut, channels, args.previous, segments.factor, segments.entering);
    RAT_TRY(launched("gated_scan"));
  }
  walk<<<blocks, threads, 0, stream()>>>(args, cut, segments.entering);
  return launched("gated_scan");
}

Status gated_scan_backward(const GatedScanBackwardArgs& args) {
  if (args.gate.rows * args.gate.cols == 0) return ok();
  const Cut cut(args.gate.rows, args.tokens, args.chunk_len);
  const int64_t channels = args.gate.cols;
  RAT_ASSIGN(const Segments segments, segments_of(cut, channels));
  if (segments.factor != nullptr) {
    summarise_backward<<<blocks_for(cut.all() * channels, threads), threads, 0, stream()>>>(
        args.gate, args.grad_state, cut, segments.factor, segments.entering);
    RAT_TRY(launched("gated_scan_backward"));
    enter_backward<<<blocks_for(cut.sequences * cut.chunks * channels, threads), threads, 0, stream()>>>(
        cut, channels, segments.factor, segments.entering);
    RAT_TRY(launched("gated_scan_backward"));
  }
  walk_backward<<<blocks_for(cut.all() * args.input.cols, threads), threads, 0, stream()>>>(args, cut,
                                                                                           segments.entering);
  return launched("gated_scan_backward");
}

}  // namespace rat::kernels::gpu
