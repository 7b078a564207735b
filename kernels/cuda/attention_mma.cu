// Forward attention on tensor cores through mma.sync: 128 query rows per block, 64 keys per step, keys and values of
// the next step in flight. The running maximum of the online softmax starts at the own key's score, or at a finite number.
#include "kernels/cuda/attention_paths.h"
#include "kernels/cuda/keys_seen.cuh"
#include "kernels/cuda/mma_tiles.cuh"

namespace rat::kernels::cuda::paths {
namespace {

using namespace tiles;

constexpr int kRows = 128, kKeys = 64, kThreads = 128;

template <int P>
struct Shared {  // byte offsets
  static constexpr int queries = 0;
  static constexpr int stage = kRows * P * 2;  // two stages of keys and values
  static constexpr int stage_bytes = 2 * kKeys * P * 2;
  static constexpr int own_v = stage;  // after the last step: rows of own values, then of output gates
  static constexpr int bytes = stage + 2 * stage_bytes;
  static constexpr int z = queries;
};

// Two 16-row tiles per warp; a thread owns 4 rows: tile m, upper (i = 0) or lower (i = 1) half.
struct RowState {
  int limit[2][2];  // end of the keys that the row sees
  float top[2][2];  // running maximum, in units of log2
  float sum[2][2];  // this lane's part of the running sum
};

template <int P, class Seen>
__device__ __forceinline__ void softmax_step(float (&scores)[2][kKeys / 8][4], float (&out)[2][P / 8][4], RowState& rows,
                                             const Seen& seen, int first_key, bool masked, float scale) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (masked) {
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (!seen.sees(rows.limit[m][i], first_key + n * 8 + (lane & 3) * 2 + e)) scores[m][n][2 * i + e] = -INFINITY;
      }
      float highest = -INFINITY;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
        highest = fmaxf(highest, fmaxf(scores[m][n][2 * i], scores[m][n][2 * i + 1]));
      const float top = fmaxf(rows.top[m][i], row_max(highest) * scale);
      const float shrink = exp2_fast(rows.top[m][i] - top);
      float sum = 0.0f;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[m][n][2 * i + e];
          score = exp2_fast(fmaf(score, scale, -top));
          sum += score;
        }
      rows.sum[m][i] = fmaf(rows.sum[m][i], shrink, sum);
      rows.top[m][i] = top;
#pragma unroll
      for (int n = 0; n < P / 8; ++n) {
        out[m][n][2 * i] *= shrink;
        out[m][n][2 * i + 1] *= shrink;
      }
    }
}

template <int P, class Seen>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(ChunkAttentionArgs<bf16> a) {
  extern __shared__ __align__(128) unsigned char memory[];
  using Offsets = Shared<P>;
  const uint32_t shared = shared_address(memory);
  const RatShape& s = a.shape;
  const Seen seen(s);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z), H = static_cast<int>(s.heads);
  const int first_row = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kRows;  // the longest rows start first
  const int rows_here = min(kRows, static_cast<int>(s.tokens) - first_row);
  const int64_t row0 = b * s.tokens + first_row;
  const int first_key = seen.begin(first_row) / kKeys * kKeys;
  const int keys_here = seen.end(first_row + rows_here - 1) - first_key;
  const int steps = (keys_here + kKeys - 1) / kKeys;
  const int warp_row = first_row + warp * 32, fewest_keys = seen.end(warp_row), latest_begin = seen.begin(warp_row + 31);
  const bf16* keys = a.keys.at(b, h, first_key);
  const bf16* values = a.values.at(b, h, first_key);
  const auto start_step = [&](int step) {
    const uint32_t stage = shared + Offsets::stage + (step & 1) * Offsets::stage_bytes;
    const int left = keys_here - step * kKeys;
    copy_tile<kKeys, P, kThreads>(stage, keys + step * kKeys * a.keys.row, a.keys.row, left);
    copy_tile<kKeys, P, kThreads>(stage + kKeys * P * 2, values + step * kKeys * a.values.row, a.values.row, left);
  };
  copy_tile<kRows, P, kThreads>(shared, a.q_rot + row0 * a.query_stride() + h % static_cast<int>(s.groups) * P,
                                a.query_stride(), rows_here);
  if (steps > 0) start_step(0);
  commit_copies();

  const float scale = rsqrtf(static_cast<float>(P)) * kLog2e;
  RowState rows;
  float out[2][P / 8][4] = {};
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int r = warp * 32 + m * 16 + i * 8 + lane / 4;
      rows.limit[m][i] = seen.end(first_row + r);
      rows.top[m][i] = kLowest;
      rows.sum[m][i] = 0.0f;
      if constexpr (Seen::own_key) {
        rows.top[m][i] = r < rows_here ? a.own_score[Seen::own_score(s, b, first_row + r, h)] * kLog2e : 0.0f;
        if (lane % 4 == 0) rows.sum[m][i] = 1.0f;
      }
    }

  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) start_step(step + 1);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    const uint32_t stage = shared + Offsets::stage + (step & 1) * Offsets::stage_bytes;
    const int key = first_key + step * kKeys;
    if (Seen::own_key || !sees_none(seen, warp_row, warp_row + 31, key, kKeys)) {
      float scores[2][kKeys / 8][4] = {};
      multiply_transposed<2, kKeys / 8, P>(scores, shared, warp * 32, stage);
      softmax_step<P>(scores, out, rows, seen, key, key + kKeys > fewest_keys || key < latest_begin, scale);
      uint32_t weights[2][kKeys / 16][4];
      as_left_operand<2, kKeys / 8>(weights, scores);
      multiply_add<2, kKeys / 16, P>(out, weights, stage + kKeys * P * 2);
    }
    __syncthreads();
  }

  // The own value, the division, the output gate; own values and gates come in whole rows, y leaves the same way.
  if constexpr (Seen::own_key)
    copy_tile<kRows, P, kThreads>(shared + Offsets::own_v, a.own_v + row0 * s.channels() + h * P, s.channels(), rows_here);
  wait_copies<0>();
  __syncthreads();
  if constexpr (Seen::own_key) {
    copy_tile<kRows, P, kThreads>(shared + Offsets::z, a.z + row0 * a.z_stride + h * P, a.z_stride, rows_here);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
  }
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int r = warp * 32 + m * 16 + i * 8 + lane / 4;
      const float sum = row_sum(rows.sum[m][i]), inverse = 1.0f / sum;
      float own_weight = 0.0f;
      if constexpr (Seen::own_key)
        own_weight = exp2_fast((r < rows_here ? a.own_score[Seen::own_score(s, b, first_row + r, h)] * kLog2e : 0.0f) - rows.top[m][i]);
      if (a.lse != nullptr && lane % 4 == 0 && r < rows_here)
        a.lse[(int64_t{b} * H + h) * s.tokens + first_row + r] = fmaf(rows.top[m][i], kLn2, logf(sum));
#pragma unroll
      for (int n = 0; n < P / 8; ++n) {
        const uint32_t at = piece_at<P>(r, n) + (lane & 3) * 4;
        unsigned& cell = *reinterpret_cast<unsigned*>(memory + Offsets::own_v + at);
        float low = out[m][n][2 * i], high = out[m][n][2 * i + 1];
        if constexpr (Seen::own_key) {
          const unsigned gate = *reinterpret_cast<const unsigned*>(memory + Offsets::z + at);
          low = fmaf(own_weight, low_half(cell), low) * inverse * sigmoid<bf16>(low_half(gate));
          high = fmaf(own_weight, high_half(cell), high) * inverse * sigmoid<bf16>(high_half(gate));
        } else {
          low *= inverse, high *= inverse;
        }
        cell = pack_pair(low, high);
      }
    }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kRows * P / 8 / kThreads; ++i) {
    const int at = i * kThreads + static_cast<int>(threadIdx.x), r = at / (P / 8), piece = at % (P / 8);
    if (r < rows_here)
      *reinterpret_cast<uint4*>(a.y + (row0 + r) * s.channels() + h * P + piece * 8) =
          *reinterpret_cast<const uint4*>(memory + Offsets::own_v + piece_at<P>(r, piece));
  }
}

template <int P, class Seen>
Status launch(const ChunkAttentionArgs<bf16>& a, cudaStream_t stream) {
  constexpr int shared = Shared<P>::bytes;
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(forward_kernel<P, Seen>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
                       "chunk_attention (mma): shared memory"));
  const dim3 grid(static_cast<unsigned>((a.shape.tokens + kRows - 1) / kRows), static_cast<unsigned>(a.shape.heads),
                  static_cast<unsigned>(a.shape.batch));
  forward_kernel<P, Seen><<<grid, kThreads, shared, stream>>>(a);
  return launched("chunk_attention (mma)");
}

template <class Seen>
Status launch(const ChunkAttentionArgs<bf16>& a, cudaStream_t stream) {
  return a.shape.head_size == 64 ? launch<64, Seen>(a, stream) : launch<128, Seen>(a, stream);
}

}  // namespace

Status mma_forward(const ChunkAttentionArgs<bf16>& a, cudaStream_t stream) {
  return with_keys_seen(a.shape, [&](auto seen) { return launch<typename decltype(seen)::Type>(a, stream); });
}

}  // namespace rat::kernels::cuda::paths
