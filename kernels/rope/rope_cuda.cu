#include "kernels/cuda/device.h"
#include "kernels/cuda_ops.h"
#include "kernels/rope/rope.h"

namespace rat::kernels::gpu {
namespace {

constexpr int threads = 256;

struct Rotation {
  const float *cosines = nullptr, *sines = nullptr;  // (positions, half)
  int64_t half = 0, tokens = 0, chunk_len = 0, first = 0;
  float sign = 1.0f;
  bool add = false;
};

// One thread per rotated pair.
__global__ void rotate(Input x, Output y, Rotation r) {
  const int64_t pairs = x.cols / 2, at = int64_t{blockIdx.x} * threads + threadIdx.x, i = at / pairs, pair = at % pairs;
  if (i >= x.rows) return;
  const int64_t position = (r.first + i % r.tokens) / r.chunk_len, j = pair % r.half;
  const int64_t low = pair / r.half * 2 * r.half + j, high = low + r.half;
  const float c = r.cosines[position * r.half + j], s = r.sign * r.sines[position * r.half + j];
  const float x_low = x.row(i)[low], x_high = x.row(i)[high];
  float &y_low = y.row(i)[low], &y_high = y.row(i)[high];
  const float to_low = x_low * c - x_high * s, to_high = x_high * c + x_low * s;
  y_low = r.add ? y_low + to_low : to_low;
  y_high = r.add ? y_high + to_high : to_high;
}

__global__ void copy(Input x, Output y, bool add) {
  const int64_t at = int64_t{blockIdx.x} * threads + threadIdx.x, i = at / x.cols, j = at % x.cols;
  if (i >= x.rows) return;
  y.row(i)[j] = add ? y.row(i)[j] + x.row(i)[j] : x.row(i)[j];
}

}  // namespace

Status rope(const RopeArgs& args) {
  if (args.x.rows * args.x.cols == 0) return ok();
  if (args.table == nullptr) {
    copy<<<blocks_for(args.x.rows * args.x.cols, threads), threads, 0, stream()>>>(args.x, args.y, args.add);
    return launched("rope");
  }
  const Rotation rotation{args.table->cosines(0),
                          args.table->sines(0),
                          args.table->head_size() / 2,
                          args.tokens,
                          args.chunk_len,
                          args.first,
                          args.inverse ? -1.0f : 1.0f,
                          args.add};
  rotate<<<blocks_for(args.x.rows * args.x.cols / 2, threads), threads, 0, stream()>>>(args.x, args.y, rotation);
  return launched("rope");
}

}  // namespace rat::kernels::gpu
