#include "kernels/cuda/device.h"

#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "kernels/cuda_ops.h"
#include "kernels/memory/memory.h"

namespace rat::kernels::gpu {
namespace {

// The name of the device in use, or why there is none.
struct DeviceCheck {
  std::string name, problem;

  DeviceCheck() {
    int count = 0;
    cudaDeviceProp properties{};
    if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess || count == 0) {
      problem = fmt::format("this machine has no usable NVIDIA GPU ({}); choose the device cpu",
                            error == cudaSuccess ? "none found" : cudaGetErrorString(error));
    } else if (const cudaError_t read = cudaGetDeviceProperties(&properties, 0); read != cudaSuccess) {
      problem = fmt::format("the GPU cannot be asked for its properties ({}); choose the device cpu", cudaGetErrorString(read));
    } else if (properties.major < 8) {
      problem = fmt::format("{} has compute capability {}.{}, but 8.0 (Ampere) or later is needed; choose the device cpu",
                            properties.name, properties.major, properties.minor);
    } else {
      name = properties.name;
    }
    if (!problem.empty()) (void)cudaGetLastError();
  }
};

const DeviceCheck& device() {
  static const DeviceCheck check;
  return check;
}

// What this process has of the device's memory, cuBLASLt's workspaces left out.
struct Ledger {
  std::mutex mutex;
  std::unordered_map<void*, std::size_t> sizes;
  std::size_t in_use = 0, peak = 0;
  std::atomic<uint64_t> changes{0};
  void take(std::size_t bytes) {
    peak = std::max(peak, in_use += bytes);
    ++changes;
  }
  void give_back(std::size_t bytes) {
    in_use -= bytes;
    ++changes;
  }
};

Ledger& ledger() {
  static Ledger* const ledger = new Ledger;  // outlives every thread that gives memory back
  return *ledger;
}

void taken(std::size_t bytes) {
  const std::lock_guard lock(ledger().mutex);
  ledger().take(bytes);
}

void given_back(std::size_t bytes) {
  const std::lock_guard lock(ledger().mutex);
  ledger().give_back(bytes);
}

// Freed in stream order at the end of the thread, unless the driver is gone by then.
struct ScratchMemory {
  std::array<void*, scratch_slots> data{};
  std::array<std::size_t, scratch_slots> capacity{};
  ~ScratchMemory() {
    for (std::size_t i = 0; i < data.size(); ++i) {
      if (data[i] == nullptr) continue;
      (void)cudaFree(data[i]);
      given_back(capacity[i]);
    }
  }
};

// Pinned memory through which small blocks go to the device: the host does not wait for what was started before, and the
// device does not wait for the host. Halves take turns; one is filled again when all that left it has arrived.
class Staging {
 public:
  static constexpr std::size_t half_bytes = std::size_t{4} << 20;

  ~Staging() {
    for (Half& half : halves_) {
      if (half.data != nullptr) (void)cudaFreeHost(half.data);
      if (half.left != nullptr) (void)cudaEventDestroy(half.left);
    }
  }

  Status copy(void* target, const void* host, std::size_t bytes) {
    if (used_ + bytes > half_bytes) RAT_TRY(turn());
    Half& half = halves_[current_];
    if (half.data == nullptr) {
      RAT_TRY(checked(cudaMallocHost(&half.data, half_bytes), "taking pinned memory"));
      RAT_TRY(checked(cudaEventCreateWithFlags(&half.left, cudaEventDisableTiming), "making an event"));
    }
    void* const staged = static_cast<std::byte*>(half.data) + used_;
    std::memcpy(staged, host, bytes);
    used_ += (bytes + 63) / 64 * 64;
    return checked(cudaMemcpyAsync(target, staged, bytes, cudaMemcpyHostToDevice, stream()), "copying to the GPU");
  }

 private:
  struct Half {
    void* data = nullptr;
    cudaEvent_t left = nullptr;
  };

  Status turn() {
    RAT_TRY(checked(cudaEventRecord(halves_[current_].left, stream()), "marking a copy"));
    current_ = 1 - current_;
    used_ = 0;
    const cudaEvent_t left = halves_[current_].left;
    return left == nullptr ? ok() : checked(cudaEventSynchronize(left), "copying to the GPU");
  }

  std::array<Half, 2> halves_;
  std::size_t current_ = 0, used_ = 0;
};

// Pinned memory for a few values that come to the host while the device goes on.
struct ReadBack {
  void* data = nullptr;
  cudaEvent_t arrived = nullptr;
  ~ReadBack() {
    if (data != nullptr) (void)cudaFreeHost(data);
    if (arrived != nullptr) (void)cudaEventDestroy(arrived);
  }
};

ReadBack& read_back() {
  static thread_local ReadBack values;
  return values;
}

// Events are made once and used again.
struct Marks {
  std::vector<cudaEvent_t> events;
  int used = 0;
  ~Marks() {
    for (const cudaEvent_t event : events) (void)cudaEventDestroy(event);
  }
};

Marks& marks() {
  static thread_local Marks marks;
  return marks;
}

Error out_of_memory(std::size_t bytes) {
  (void)cudaGetLastError();
  std::size_t free = 0, total = 0;
  (void)cudaMemGetInfo(&free, &total);
  return fail(ErrorCode::device_failure,
              "{} has no memory for {} more bytes ({} of {} are free); use a smaller batch, a shorter sequence or a "
              "smaller model",
              device().name, bytes, free, total);
}

}  // namespace

std::string matmul_path(Dtype dtype) {
  return fmt::format("{}, cuBLASLt {}, f32 sums", device().name.empty() ? "no GPU" : device().name, dtype_name(dtype));
}

Status supports(Dtype dtype) {
  if (!device().problem.empty()) return fail(ErrorCode::unsupported, "{}", device().problem);
  if (dtype != Dtype::bf16x6) return ok();
  return fail(ErrorCode::unsupported, "the cuda device computes in f32, tf32, bf16x3 and bf16, not in {}; use one of these",
              dtype_name(dtype));
}

Dtype careful(Dtype dtype) { return dtype == Dtype::bf16 ? Dtype::bf16x3 : dtype; }

Status checked(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return ok();
  return fail(ErrorCode::device_failure, "{} failed on {}: {}; the GPU can be used again after a restart of the program",
              what, device().name, cudaGetErrorString(error));
}

Status launched(const char* op) { return checked(cudaGetLastError(), op); }

Result<void*> scratch_bytes(int slot, std::size_t bytes) {
  static thread_local ScratchMemory memory;
  const auto at = static_cast<std::size_t>(slot);
  RAT_CHECK(slot >= 0 && slot < scratch_slots, "ops number their scratch from 0");
  if (bytes <= memory.capacity[at]) return memory.data[at];
  if (memory.data[at] != nullptr) RAT_TRY(checked(cudaFree(memory.data[at]), "freeing memory"));  // waits for its users
  memory.data[at] = nullptr;
  given_back(memory.capacity[at]);
  memory.capacity[at] = 0;
  if (cudaMalloc(&memory.data[at], bytes) != cudaSuccess) return out_of_memory(bytes);
  taken(bytes);
  memory.capacity[at] = bytes;
  return memory.data[at];
}

Status to_device(void* target, const void* host, std::size_t bytes) {
  static thread_local Staging staging;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  RAT_TRY(checked(cudaStreamIsCapturing(stream(), &capture), "copying to the GPU"));
  if (capture != cudaStreamCaptureStatusNone)  // a replay would copy whatever lies there by then
    return fail(ErrorCode::unsupported, "copies from the host cannot be part of a recording; make them before it");
  if (bytes <= Staging::half_bytes) return staging.copy(target, host, bytes);
  return checked(cudaMemcpyAsync(target, host, bytes, cudaMemcpyHostToDevice, stream()), "copying to the GPU");
}

Status to_host(void* host, const void* source, std::size_t bytes) {
  RAT_TRY(checked(cudaMemcpyAsync(host, source, bytes, cudaMemcpyDeviceToHost, stream()), "copying from the GPU"));
  return finish();
}

Status start_read_back(const void* source, std::size_t bytes) {
  RAT_CHECK(bytes <= most_read_back, "only a few values are read back");
  ReadBack& values = read_back();
  if (values.data == nullptr) {
    RAT_TRY(checked(cudaMallocHost(&values.data, most_read_back), "taking pinned memory"));
    RAT_TRY(checked(cudaEventCreateWithFlags(&values.arrived, cudaEventDisableTiming), "making an event"));
  }
  RAT_TRY(checked(cudaMemcpyAsync(values.data, source, bytes, cudaMemcpyDeviceToHost, stream()), "copying from the GPU"));
  return checked(cudaEventRecord(values.arrived, stream()), "marking a copy");
}

Status finish_read_back(void* host, std::size_t bytes) {
  RAT_TRY(checked(cudaEventSynchronize(read_back().arrived), "the GPU's work"));
  std::memcpy(host, read_back().data, bytes);
  return ok();
}

void* allocate(std::size_t bytes) {
  void* data = nullptr;
  if (!device().problem.empty()) throw OutOfMemory(device().problem);
  if (cudaMalloc(&data, bytes) != cudaSuccess) throw OutOfMemory(out_of_memory(bytes).message);
  const std::lock_guard lock(ledger().mutex);
  ledger().sizes[data] = bytes;
  ledger().take(bytes);
  return data;
}

void release(void* data) {
  (void)cudaFree(data);  // waits for its users
  const std::lock_guard lock(ledger().mutex);
  ledger().give_back(ledger().sizes[data]);
  ledger().sizes.erase(data);
}

std::size_t peak_bytes(bool reset) {
  const std::lock_guard lock(ledger().mutex);
  if (reset) ledger().peak = ledger().in_use;
  return ledger().peak;
}

uint64_t memory_changes() { return ledger().changes.load(std::memory_order_relaxed); }

int mark() {
  Marks& all = marks();
  if (all.used == static_cast<int>(all.events.size())) {
    cudaEvent_t event = nullptr;
    (void)cudaEventCreate(&event);
    all.events.push_back(event);
  }
  (void)cudaEventRecord(all.events[static_cast<std::size_t>(all.used)], stream());
  return all.used++;
}

double ms_between(int begin, int end) {
  const auto& events = marks().events;
  const cudaEvent_t last = events[static_cast<std::size_t>(end)];
  float ms = 0;
  (void)cudaEventSynchronize(last);
  (void)cudaEventElapsedTime(&ms, events[static_cast<std::size_t>(begin)], last);
  return static_cast<double>(ms);
}

void forget_marks() { marks().used = 0; }

// NVTX ranges: what Nsight shows above the kernels of an op. They cost nothing unless a profiler listens.
void enter(const char* op) { nvtxRangePushA(op); }
void leave() { nvtxRangePop(); }

Status finish() { return checked(cudaStreamSynchronize(stream()), "the GPU's work"); }

}  // namespace rat::kernels::gpu
