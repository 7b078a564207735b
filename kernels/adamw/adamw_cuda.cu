// AdamW and the squared norm over all tensors at once: each block has one chunk of one tensor. The list of tensors is a
// parameter of the kernel, so that nothing is uploaded and nothing is kept.
#include "kernels/adamw/adamw.h"
#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda_ops.h"

namespace rat::kernels::gpu {
namespace {

constexpr int threads = 256;
constexpr int64_t chunk = int64_t{1} << 14;
constexpr int most_tensors = 512;  // of one launch: the parameters of a kernel may take 32,764 bytes

struct Moments {
  float* value;
  const float* grad;
  float *m, *v;
  int64_t size;
};
struct Values {
  const float* value;
  int64_t size;
};

template <class Tensor>
struct Table {
  Tensor tensors[most_tensors];
  int32_t first[most_tensors];  // chunk
  int32_t count = 0, chunks = 0;

  void add(const Tensor& tensor) {
    tensors[count] = tensor;
    first[count++] = chunks;
    chunks += static_cast<int32_t>(blocks_for(tensor.size, chunk));
  }
};

// Adds the tensors that are not empty to tables and launches each table that is full, and the last.
template <class Tensor, class Tensors, class Entry, class Launch>
Status for_each_table(const Tensors& tensors, const Entry& entry, const Launch& launch) {
  Table<Tensor> table;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (const Tensor tensor = entry(tensors[i]); tensor.size > 0) table.add(tensor);
    if (table.chunks == 0 || (table.count < most_tensors && i + 1 < tensors.size())) continue;
    RAT_TRY(launch(table));
    table.count = table.chunks = 0;
  }
  return ok();
}

// The last tensor whose first chunk is not after this block's.
template <class Tensor>
__device__ int tensor_of_block(const Table<Tensor>& table) {
  int low = 0, high = table.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (table.first[middle] <= static_cast<int>(blockIdx.x) ? low : high) = middle;
  }
  return low;
}

__device__ bool aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % sizeof(float4) == 0; }

struct Rates {
  float beta1, fresh1, beta2, fresh2, inverse_correction2, rate, keep, eps;
  double clip;

  explicit Rates(const AdamWArgs& a)
      : beta1(f(a.beta1)),
        fresh1(f(1.0 - a.beta1)),
        beta2(f(a.beta2)),
        fresh2(f(1.0 - a.beta2)),
        inverse_correction2(f(1.0 / a.correction2)),
        rate(f(a.lr / a.correction1)),
        keep(f(1.0 - a.lr * a.weight_decay)),
        eps(f(a.eps)),
        clip(a.clip) {}
  static float f(double x) { return static_cast<float>(x); }
};

// Rounded as on the CPU: intrinsics keep the compiler from fusing more.
__device__ __forceinline__ void step(const Rates& rates, float scale, float& value, float grad, float& m, float& v) {
  const float g = __fmul_rn(grad, scale);
  m = fmaf(rates.beta1, m, __fmul_rn(rates.fresh1, g));
  v = fmaf(rates.beta2, v, __fmul_rn(rates.fresh2, __fmul_rn(g, g)));
  const float root = __fadd_rn(sqrtf(__fmul_rn(v, rates.inverse_correction2)), rates.eps);
  value = __fsub_rn(__fmul_rn(value, rates.keep), __fmul_rn(rates.rate, m) / root);
}

__global__ void __launch_bounds__(threads) adamw_chunks(const __grid_constant__ Table<Moments> table, Rates rates,
                                                         const double* squared_norm) {
  const double squares = *squared_norm;
  if (!isfinite(squares)) return;
  const auto scale = static_cast<float>(rates.clip > 0 ? fmin(1.0, rates.clip / (sqrt(squares) + 1e-6)) : 1.0);
  const int index = tensor_of_block(table);
  const Moments& tensor = table.tensors[index];
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) - table.first[index]) * chunk;
  const int64_t n = min(chunk, tensor.size - begin);
  float* const value = tensor.value + begin;
  const float* const grad = tensor.grad + begin;
  float *const m = tensor.m + begin, *const v = tensor.v + begin;
  const bool wide = aligned(value) && aligned(grad) && aligned(m) && aligned(v);
  const int64_t quads = wide ? n / 4 : 0;
  for (int64_t i = threadIdx.x; i < quads; i += threads) {
    float4 x = reinterpret_cast<float4*>(value)[i], first = reinterpret_cast<float4*>(m)[i];
    float4 second = reinterpret_cast<float4*>(v)[i];
    const float4 g = reinterpret_cast<const float4*>(grad)[i];
    step(rates, scale, x.x, g.x, first.x, second.x);
    step(rates, scale, x.y, g.y, first.y, second.y);
    step(rates, scale, x.z, g.z, first.z, second.z);
    step(rates, scale, x.w, g.w, first.w, second.w);
    reinterpret_cast<float4*>(value)[i] = x;
    reinterpret_cast<float4*>(m)[i] = first;
    reinterpret_cast<float4*>(v)[i] = second;
  }
  for (int64_t i = quads * 4 + threadIdx.x; i < n; i += threads) step(rates, scale, value[i], grad[i], m[i], v[i]);
}

// A thread's few squares are summed in single precision, everything else in double.
__global__ void __launch_bounds__(threads) square_chunks(const __grid_constant__ Table<Values> table, double* sums) {
  const int index = tensor_of_block(table);
  const Values& tensor = table.tensors[index];
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) - table.first[index]) * chunk;
  const int64_t n = min(chunk, tensor.size - begin);
  const float* const value = tensor.value + begin;
  const int64_t quads = aligned(value) ? n / 4 : 0;
  float sum = 0;
  for (int64_t i = threadIdx.x; i < quads; i += threads) {
    const float4 x = reinterpret_cast<const float4*>(value)[i];
    sum = fmaf(x.x, x.x, fmaf(x.y, x.y, fmaf(x.z, x.z, fmaf(x.w, x.w, sum))));
  }
  for (int64_t i = quads * 4 + threadIdx.x; i < n; i += threads) sum = fmaf(value[i], value[i], sum);
  const double total = block_sum<threads>(static_cast<double>(sum));
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

__global__ void __launch_bounds__(threads) join(const double* sums, int64_t n, double* total) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += threads) sum += sums[i];
  sum = block_sum<threads>(sum);
  if (threadIdx.x == 0) *total = sum;
}

}  // namespace

// The norm stays on the device for the update, which is started before the host has it.
Status adamw(const AdamWArgs& args) {
  *args.squared_norm = 0;
  int64_t chunks = 0;
  for (const AdamWTensor& tensor : args.tensors) chunks += blocks_for(static_cast<int64_t>(tensor.grad.size()), chunk);
  if (chunks == 0) return ok();
  RAT_ASSIGN(double* const sums, scratch<double>(0, chunks + 1));  // the last: the total
  double* const total = sums + chunks;
  int64_t done = 0;
  const auto gradient = [](const AdamWTensor& x) {
    return Values{x.grad.data(), static_cast<int64_t>(x.grad.size())};
  };
  RAT_TRY(for_each_table<Values>(args.tensors, gradient, [&](const Table<Values>& table) {
    square_chunks<<<static_cast<unsigned>(table.chunks), threads, 0, stream()>>>(table, sums + done);
    done += table.chunks;
    return launched("adamw");
  }));
  join<<<1, threads, 0, stream()>>>(sums, chunks, total);
  RAT_TRY(launched("adamw"));
  RAT_TRY(start_read_back(total, sizeof(double)));
  const Rates rates(args);
  const auto moments = [](const AdamWTensor& x) {
    return Moments{x.value.data(), x.grad.data(), x.m.data(), x.v.data(), static_cast<int64_t>(x.value.size())};
  };
  RAT_TRY(for_each_table<Moments>(args.tensors, moments, [&](const Table<Moments>& table) {
    adamw_chunks<<<static_cast<unsigned>(table.chunks), threads, 0, stream()>>>(table, rates, total);
    return launched("adamw");
  }));
  return finish_read_back(args.squared_norm, sizeof(double));
}

}  // namespace rat::kernels::gpu
