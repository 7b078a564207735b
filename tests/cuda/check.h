// What the device tests share: buffers on the device, random inputs rounded to the tested dtype, relative errors.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/cuda/status.h"

namespace rat::cuda_test {

using bf16 = __nv_bfloat16;
using Doubles = std::vector<double>;

inline float bf16_to_float(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}
inline uint16_t float_to_bf16(float value) {  // to nearest even; NaN stays NaN
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

template <class T>
double rounded(double value) {
  if constexpr (std::is_same_v<T, bf16>) return bf16_to_float(float_to_bf16(static_cast<float>(value)));
  else return static_cast<float>(value);
}

[[noreturn]] inline void stop(const std::string& reason) {
  std::fprintf(stderr, "stopped: %s\n", reason.c_str());
  std::exit(1);
}
inline void require(cudaError_t error, const char* what) {
  if (error != cudaSuccess) stop(std::string(what) + ": " + cudaGetErrorString(error));
}
inline void require(const kernels::cuda::Status& status) {
  if (!status.ok()) stop(status.problem());
}

// Device memory, filled with NaN bytes at birth so that an element nobody writes is seen.
template <class T>
class Device {
 public:
  explicit Device(int64_t count) : count_(count) {
    require(cudaMalloc(reinterpret_cast<void**>(&data_), bytes() + 16), "allocation");
    poison();
  }
  explicit Device(const Doubles& values) : Device(static_cast<int64_t>(values.size())) { set(values); }
  ~Device() { cudaFree(data_); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  T* get() const { return data_; }
  int64_t count() const { return count_; }
  std::size_t bytes() const { return static_cast<std::size_t>(count_) * sizeof(T); }
  void poison() { require(cudaMemset(data_, 0xff, bytes() + 16), "poisoning"); }

  void set(const Doubles& values) {
    if constexpr (std::is_same_v<T, bf16>) {
      std::vector<uint16_t> host(values.size());
      for (std::size_t i = 0; i < values.size(); ++i) host[i] = float_to_bf16(static_cast<float>(values[i]));
      require(cudaMemcpy(data_, host.data(), bytes(), cudaMemcpyHostToDevice), "upload");
    } else {
      std::vector<T> host(values.begin(), values.end());
      require(cudaMemcpy(data_, host.data(), bytes(), cudaMemcpyHostToDevice), "upload");
    }
  }
  std::vector<unsigned char> raw() const {
    std::vector<unsigned char> host(bytes());
    require(cudaMemcpy(host.data(), data_, bytes(), cudaMemcpyDeviceToHost), "download");
    return host;
  }
  Doubles values() const {
    const auto host = raw();
    Doubles result(static_cast<std::size_t>(count_));
    for (std::size_t i = 0; i < result.size(); ++i) {
      if constexpr (std::is_same_v<T, bf16>) {
        uint16_t bits;
        std::memcpy(&bits, host.data() + 2 * i, 2);
        result[i] = bf16_to_float(bits);
      } else {
        T value;
        std::memcpy(&value, host.data() + sizeof(T) * i, sizeof(T));
        result[i] = static_cast<double>(value);
      }
    }
    return result;
  }

 private:
  T* data_ = nullptr;
  int64_t count_ = 0;
};

template <class T>
Doubles random_values(int64_t count, std::mt19937_64& random, double scale = 1.0, double shift = 0.0) {
  std::normal_distribution<double> normal(shift, scale);
  Doubles values(static_cast<std::size_t>(count));
  for (double& value : values) value = rounded<T>(normal(random));
  return values;
}

// ||a - b|| / ||b||; NaN where a has one; the plain norm of a where b is zero.
inline double relative_error(const Doubles& a, const Doubles& b) {
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  if (a.size() != b.size()) return NAN;
  return size > 0.0 ? std::sqrt(difference / size) : std::sqrt(difference);
}

// Counts comparisons of one run; prints the failures, and with `verbose` everything.
class Checks {
 public:
  bool verbose = false;
  int passed = 0, failed = 0;

  void within(const std::string& what, const Doubles& value, const Doubles& reference, double bound) {
    within(what, relative_error(value, reference), bound);
  }
  void within(const std::string& what, double error, double bound) {
    const bool good = error <= bound;  // false for NaN
    good ? ++passed : ++failed;
    if (!good || verbose) std::printf("%s %-64s error %.2e bound %.0e\n", good ? "ok  " : "FAIL", what.c_str(), error, bound);
  }
  void that(const std::string& what, bool good) {
    good ? ++passed : ++failed;
    if (!good || verbose) std::printf("%s %s\n", good ? "ok  " : "FAIL", what.c_str());
  }
};

}  // namespace rat::cuda_test
