#include "kernels/cuda/device.h"
#include "kernels/cuda_ops.h"
#include "kernels/memory/memory.h"

namespace rat::kernels::gpu {
namespace {

__global__ void copy(Rows<const float> x, Rows<float> y, const int32_t* rows) {
  const int64_t i = blockIdx.x;
  const float* from = x.data + (rows != nullptr ? rows[i] : i) * x.stride;
  float* to = y.data + i * y.stride;
  for (int64_t j = threadIdx.x; j < y.cols; j += blockDim.x) to[j] = from[j];
}

__global__ void widen_rows(const uint16_t* x, Rows<float> y) {
  const uint16_t* from = x + blockIdx.x * y.cols;
  float* to = y.data + blockIdx.x * y.stride;
  for (int64_t j = threadIdx.x; j < y.cols; j += blockDim.x) to[j] = __uint_as_float(static_cast<unsigned>(from[j]) << 16);
}

std::size_t bytes_of(int64_t floats) { return static_cast<std::size_t>(floats) * sizeof(float); }

}  // namespace

Status upload(const UploadArgs& args) { return to_device(args.device, args.host.data(), args.host.size_bytes()); }

Status download(const DownloadArgs& args) {
  RAT_TRY(checked(cudaMemcpy2DAsync(args.host, bytes_of(args.rows.cols), args.rows.data, bytes_of(args.rows.stride),
                                    bytes_of(args.rows.cols), static_cast<std::size_t>(args.rows.rows),
                                    cudaMemcpyDeviceToHost, stream()),
                  "copying from the GPU"));
  return finish();
}

Status zero(const ZeroArgs& args) {
  return checked(cudaMemset2DAsync(args.x.data, bytes_of(args.x.stride), 0, bytes_of(args.x.cols),
                                   static_cast<std::size_t>(args.x.rows), stream()),
                 "zero");
}

Status copy_rows(const CopyRowsArgs& args) {
  // Without gaps, all at once: a row of the other form has fewer than 2 GiB.
  const bool gaps = args.y.rows > 1 && (args.x.stride != args.x.cols || args.y.stride != args.y.cols);
  if (args.rows.empty() && !gaps)
    return checked(cudaMemcpyAsync(args.y.data, args.x.data, bytes_of(args.y.rows * args.y.cols),
                                   cudaMemcpyDeviceToDevice, stream()),
                   "copy_rows");
  if (args.rows.empty())
    return checked(cudaMemcpy2DAsync(args.y.data, bytes_of(args.y.stride), args.x.data, bytes_of(args.x.stride),
                                     bytes_of(args.y.cols), static_cast<std::size_t>(args.y.rows),
                                     cudaMemcpyDeviceToDevice, stream()),
                   "copy_rows");
  auto rows = scratch<int32_t>(0, static_cast<int64_t>(args.rows.size()));
  if (!rows) return rows.error();
  RAT_TRY(to_device(*rows, args.rows.data(), args.rows.size_bytes()));
  copy<<<static_cast<unsigned>(args.y.rows), 128, 0, stream()>>>(args.x, args.y, *rows);
  return launched("copy_rows");
}

Status widen(const WidenArgs& args) {
  widen_rows<<<static_cast<unsigned>(args.y.rows), 128, 0, stream()>>>(args.x, args.y);
  return launched("widen");
}

}  // namespace rat::kernels::gpu
