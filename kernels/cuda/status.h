// What a launch function answers: "" or one sentence that says what is wrong, with the values, and what to do.
// Stands alone (no fmt), so that the device code and its tests build wherever nvcc does.
#pragma once

#include <cuda_runtime.h>

#include <cstdarg>
#include <cstdio>
#include <string>
#include <utility>

namespace rat::kernels::cuda {

class [[nodiscard]] Status {
 public:
  Status() = default;
  explicit Status(std::string problem) : problem_(std::move(problem)) {}
  bool ok() const { return problem_.empty(); }
  const std::string& problem() const { return problem_; }

 private:
  std::string problem_;
};

__attribute__((format(printf, 1, 2))) inline Status refuse(const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return Status(text);
}

// The state of the last launch: a bad configuration is seen here, a fault inside the kernel at the next synchronisation.
inline Status launched(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return {};
  return refuse("%s: the launch failed: %s", kernel, cudaGetErrorString(error));
}

inline Status checked(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return {};
  return refuse("%s: %s", what, cudaGetErrorString(error));
}

}  // namespace rat::kernels::cuda

#define RAT_CUDA_TRY(...)                                            \
  do {                                                               \
    if (auto status_ = (__VA_ARGS__); !status_.ok()) return status_; \
  } while (false)
