// A block has 128 columns of the result (rows of the weight) and a part of k; the blocks of a cluster have the parts of the
// same columns and join their sums over shared memory. A ring of tiles is asked for at once: the weight's first ones while the
// kernel ahead still runs. Rows that are normed first are few enough for each block to round its own part of them; what they
// are divided by is known when the parts are joined.
#include <type_traits>

#include "kernels/cuda/capability.h"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/few_rows.h"
#include "kernels/cuda/gelu.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/tensor_map.h"

namespace rat::kernels::cuda {
namespace {

constexpr int kColumns = 128, kThreads = 2 * kColumns, kStages = 4, kStep = hopper::kHalf, kMostParts = 8;
constexpr int kNormSteps = 8;  // of a block, with a norm
static_assert(kMostNormed == kMostParts * kNormSteps * kStep);

// For up to ROWS rows. The sums take the place of the weight's tiles at the end; their rows are 4 apart modulo 16, so that
// what a warp writes lies in different banks.
template <int ROWS, bool kNorm>
struct Memory {
  unsigned char weight[kStages][hopper::half_bytes(kColumns)];
  unsigned char x[kNorm ? kNormSteps : kStages][hopper::half_bytes(ROWS)];
  uint64_t full[kStages];
  float squares[ROWS];  // of this block's part of k
};
constexpr int kSumStride = kColumns + 4;

__device__ __forceinline__ float4 load_from_block(uint32_t at, uint32_t block) {
  float4 v;
  asm volatile(
      "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %4, %5;\nld.shared::cluster.v4.f32 {%0, %1, %2, %3}, "
      "[there];\n}"
      : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
      : "r"(at), "r"(block)
      : "memory");
  return v;
}

__device__ __forceinline__ float load_value_from_block(const float* at, uint32_t block) {
  float value;
  asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %1, %2;\nld.shared::cluster.f32 %0, [there];\n}"
               : "=f"(value)
               : "r"(tiles::shared_address(at)), "r"(block)
               : "memory");
  return value;
}

// This block's steps of k, and where the tiles of each go. With a norm, x is written by threads and stays.
template <int ROWS, bool kNorm>
class Tiles {
 public:
  __device__ Tiles(Memory<ROWS, kNorm>& memory, const CUtensorMap& weight, const CUtensorMap& x, int64_t k)
      : memory_(memory), weight_(weight), x_(x) {
    const int all = static_cast<int>((k + kStep - 1) / kStep), part = static_cast<int>(blockIdx.x);
    const int parts = static_cast<int>(gridDim.x);
    begin_ = all * part / parts, count_ = all * (part + 1) / parts - begin_;
  }
  __device__ int count() const { return count_; }
  __device__ uint32_t weight_tile(int stage) const { return tiles::shared_address(memory_.weight[stage]); }
  __device__ int first_column() const { return begin_ * kStep; }
  __device__ uint32_t x_tile(int step) const { return tiles::shared_address(memory_.x[kNorm ? step : step % kStages]); }
  __device__ uint32_t full(int stage) const { return tiles::shared_address(&memory_.full[stage]); }
  __device__ void copy_weight(int step, int stage) const {
    hopper::barrier_expect(full(stage), sizeof memory_.weight[0] + (kNorm ? 0 : sizeof memory_.x[0]));
    hopper::copy_box(weight_tile(stage), weight_, (begin_ + step) * kStep, static_cast<int>(blockIdx.y) * kColumns, 0,
                     full(stage));
  }
  __device__ void copy_x(int step, int stage) const {
    if (!kNorm) hopper::copy_box(x_tile(stage), x_, (begin_ + step) * kStep, 0, 0, full(stage));
  }
  __device__ void start() const {
    hopper::prefetch_map(weight_);
    if (!kNorm) hopper::prefetch_map(x_);
    for (int stage = 0; stage < kStages; ++stage) hopper::barrier_init(full(stage), 1);
    hopper::make_barriers_visible();
    for (int stage = 0; stage < min(count_, kStages); ++stage) copy_weight(stage, stage);
    if (kNorm) return;
    wait_for_previous();
    for (int stage = 0; stage < min(count_, kStages); ++stage) copy_x(stage, stage);
  }

 private:
  Memory<ROWS, kNorm>& memory_;
  const CUtensorMap &weight_, &x_;
  int begin_, count_;
};

// This block's part of the rows times the norm's weight, and of their squares. A warp has every eighth row.
template <int ROWS, class X>
__device__ __forceinline__ void round_rows(const FewRowsArgs<X>& a, const Tiles<ROWS, true>& of,
                                           Memory<ROWS, true>& memory) {
  constexpr int pieces = kNormSteps * kStep / 8 / 32;  // of a lane, 8 columns each
  const int lane = threadIdx.x % 32, k = static_cast<int>(a.k);
  const auto exists = [&](int i) {
    return lane + i * 32 < of.count() * (kStep / 8) && of.first_column() + (lane + i * 32) * 8 < k;
  };
  float weight[pieces][8] = {};
#pragma unroll
  for (int i = 0; i < pieces; ++i)
    if (exists(i)) load<8>(a.norm.weight + of.first_column() + (lane + i * 32) * 8, weight[i]);
  wait_for_previous();
  for (int row = threadIdx.x / 32; row < ROWS; row += kThreads / 32) {
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < pieces; ++i) {
      const int piece = lane + i * 32;
      float values[8] = {};
      if (row < a.rows && exists(i)) load<8>(a.norm.x + row * k + of.first_column() + piece * 8, values);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        squares = fmaf(values[j], values[j], squares);
        values[j] *= weight[i][j];
      }
      if (piece < of.count() * 8)
        store<8>(reinterpret_cast<bf16*>(memory.x[piece / 8] + tiles::piece_at<kStep>(row, piece % 8)), values);
    }
    squares = sum_over_lanes(squares);
    if (lane == 0) memory.squares[row] = squares;
  }
  hopper::fence_shared_stores();
}

__device__ __forceinline__ void multiply_16(float (&d)[8], uint64_t a, uint64_t b) { hopper::multiply_n16(d, a, b, 1); }
__device__ __forceinline__ void multiply_16(float (&d)[16], uint64_t a, uint64_t b) {
  hopper::multiply_n32(d, a, b, 1);
}
__device__ __forceinline__ void multiply_16(float (&d)[32], uint64_t a, uint64_t b) {
  hopper::multiply_n64(d, a, b, 1);
}

// sums += the weight's rows, 64 of a warpgroup, times the rows of x.
template <int ROWS, bool kNorm>
__device__ __forceinline__ void multiply(float (&sums)[ROWS / 2], const Tiles<ROWS, kNorm>& of) {
  const uint32_t first = hopper::half_bytes(64) * __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);
  hopper::Ring ring;
  for (int step = 0; step < of.count(); ++step) {
    hopper::barrier_wait(of.full(ring.stage), ring.phase);
    const uint64_t weight = hopper::rows_operand(of.weight_tile(ring.stage) + first);
    const uint64_t x = hopper::rows_operand(of.x_tile(step));
    hopper::hold(sums);
    hopper::begin_products();
#pragma unroll
    for (int k = 0; k < kStep * 2; k += 32) multiply_16(sums, hopper::further(weight, k), hopper::further(x, k));
    hopper::commit_products();
    hopper::wait_products<0>();
    hopper::hold(sums);
    if (step + kStages < of.count()) {
      __syncthreads();
      if (threadIdx.x == 0) of.copy_weight(step + kStages, ring.stage), of.copy_x(step + kStages, ring.stage);
    }
    ring.advance<kStages>();
  }
}

template <int ROWS>
__device__ __forceinline__ void leave_sums(float* to, const float (&sums)[ROWS / 2]) {
  const int lane = threadIdx.x % 32, column = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
  for (int i = 0; i < ROWS / 2; ++i)
    to[(i / 4 * 8 + lane % 4 * 2 + i % 2) * kSumStride + column + i / 2 % 2 * 8] = sums[i];
}

// Four columns of a row, summed over the blocks in their order.
__device__ __forceinline__ void join_parts(float (&sum)[4], uint32_t at, int parts) {
  float4 values[kMostParts];
#pragma unroll
  for (int part = 0; part < kMostParts; ++part)
    values[part] = part < parts ? load_from_block(at, static_cast<uint32_t>(part)) : float4{};
#pragma unroll
  for (int part = 0; part < kMostParts; ++part)
    sum[0] += values[part].x, sum[1] += values[part].y, sum[2] += values[part].z, sum[3] += values[part].w;
}

// What a row is multiplied by: 1 over the root of its mean square.
template <int ROWS, bool kNorm, class X>
__device__ __forceinline__ float row_scale(const FewRowsArgs<X>& a, const Memory<ROWS, kNorm>& memory, int row,
                                           int parts) {
  if constexpr (!kNorm) return 1.0f;
  float squares = 0.0f;
  for (int part = 0; part < parts; ++part)
    squares += load_value_from_block(&memory.squares[row], static_cast<uint32_t>(part));
  return rsqrtf(squares / static_cast<float>(a.k) + a.norm.epsilon);
}

template <bool kGelu, class X>
__device__ __forceinline__ void put(const FewRowsArgs<X>& a, int64_t at, float (&sum)[4]) {
  if constexpr (kGelu) {
#pragma unroll
    for (float& value : sum) value *= normal_cdf(value, value * value);
  } else if (a.residual != nullptr) {
    float residual[4];
    load<4>(a.residual + at, residual);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] += residual[i];
  }
  store<4>(a.out + at, sum);
}

template <int ROWS, bool kNorm, bool kGelu, class X>
__global__ void __launch_bounds__(kThreads, 2)
    few_rows_kernel(const __grid_constant__ CUtensorMap weight, const __grid_constant__ CUtensorMap x,
                    const FewRowsArgs<X> a) {
  extern __shared__ __align__(1024) unsigned char shared[];
  auto& memory = *reinterpret_cast<Memory<ROWS, kNorm>*>(shared);
  static_assert(sizeof(float) * ROWS * kSumStride <= sizeof memory.weight,
                "the sums take the place of the weight's tiles");
  const Tiles<ROWS, kNorm> of(memory, weight, x, a.k);
  if (threadIdx.x == 0) of.start();
  if constexpr (kNorm) round_rows<ROWS>(a, of, memory);
  __syncthreads();
  wait_for_previous();
  start_next();
  if (a.counter != nullptr && blockIdx.x + blockIdx.y + threadIdx.x == 0) ++*a.counter;
  float sums[ROWS / 2] = {};
  multiply<ROWS>(sums, of);
  __syncthreads();
  auto* const own = reinterpret_cast<float*>(shared);
  leave_sums<ROWS>(own, sums);
  hopper::sync_cluster();
  const int parts = static_cast<int>(gridDim.x), items = static_cast<int>(a.rows) * (kColumns / 4);
  for (int item = blockIdx.x * kThreads + threadIdx.x; item < items; item += parts * kThreads) {
    const int row = item / (kColumns / 4), column = item % (kColumns / 4) * 4;
    const int64_t at = int64_t{blockIdx.y} * kColumns + column;
    if (at >= a.n) continue;
    float sum[4] = {};
    join_parts(sum, tiles::shared_address(own + row * kSumStride + column), parts);
    const float scale = row_scale<ROWS, kNorm>(a, memory, row, parts);
#pragma unroll
    for (float& value : sum) value *= scale;
    put<kGelu>(a, row * a.n + at, sum);
  }
  hopper::leave_cluster();  // others may still read this block's sums
}

// Enough blocks for every multiprocessor, each with a step at least, and with a norm no more than it has room for.
int parts_of(int64_t tiles, int64_t k, bool norm) {
  static const int64_t wanted = multiprocessors();
  int parts = 1;
  while (parts < kMostParts &&
         ((tiles * parts < wanted && 2 * parts * kStep <= k) || (norm && parts * kNormSteps * kStep < k)))
    parts *= 2;
  return parts;
}

template <int ROWS, bool kNorm, bool kGelu, class X>
Status launch(const FewRowsArgs<X>& a, cudaStream_t stream) {
  constexpr auto kernel = few_rows_kernel<ROWS, kNorm, kGelu, X>;
  constexpr int bytes = sizeof(Memory<ROWS, kNorm>);
  CUtensorMap weight, x{};
  RAT_CUDA_TRY(matrix_map(weight, a.weight, a.n, a.k, kColumns));
  if (!kNorm) RAT_CUDA_TRY(matrix_map(x, a.x, a.rows, a.k, ROWS));
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                       "few_rows_product: shared memory"));
  const int64_t tiles = (a.n + kColumns - 1) / kColumns;
  const int parts = parts_of(tiles, a.k, kNorm);
  const dim3 grid(static_cast<unsigned>(parts), static_cast<unsigned>(tiles));
  return launch_early({"few_rows_product", grid, kThreads, bytes, stream, parts}, kernel, weight, x, a);
}

template <bool kGelu, class X>
Status launch_for_rows(const FewRowsArgs<X>& a, cudaStream_t stream) {
  if constexpr (std::is_same_v<X, bf16>) {
    if (a.x == nullptr) return launch<kFewNormedRows, true, kGelu>(a, stream);
  }
  if (a.rows <= 16) return launch<16, false, kGelu>(a, stream);
  if (a.rows <= 32) return launch<32, false, kGelu>(a, stream);
  return launch<kFewRows, false, kGelu>(a, stream);
}

}  // namespace

template <class X>
Status paths::hopper_few_rows(const FewRowsArgs<X>& a, cudaStream_t stream) {
  if constexpr (std::is_same_v<X, bf16>) {
    if (a.gelu) return launch_for_rows<true>(a, stream);
  }
  return launch_for_rows<false>(a, stream);
}

template Status paths::hopper_few_rows(const FewRowsArgs<float>&, cudaStream_t);
template Status paths::hopper_few_rows(const FewRowsArgs<bf16>&, cudaStream_t);

}  // namespace rat::kernels::cuda
