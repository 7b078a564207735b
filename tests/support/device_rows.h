// Tensors of a backend under test, and whether there is a GPU to test on.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "kernels/memory/memory.h"
#include "tests/support/compare.h"

namespace rat::test {

// Rows in a backend's memory, uploaded from host values and read back.
class DeviceRows {
 public:
  DeviceRows(const kernels::Backend& backend, const std::vector<float>& values, int64_t rows, int64_t cols)
      : memory_(backend), rows_(rows), cols_(cols) {
    RAT_CHECK(static_cast<int64_t>(values.size()) == rows * cols, "values fill the rows");
    auto* data = static_cast<float*>(memory_.ensure(std::max<std::size_t>(1, values.size()) * sizeof(float)));
    EXPECT_OK(kernels::upload({.host = values, .device = data}, {.backend = &backend}));
  }
  float* data() const { return static_cast<float*>(memory_.data()); }
  kernels::Output rows() const { return {data(), rows_, cols_}; }
  operator kernels::Output() const { return rows(); }
  operator kernels::Input() const { return rows(); }
  std::span<float> span() const { return {data(), static_cast<std::size_t>(rows_ * cols_)}; }
  std::vector<float> read() const {
    std::vector<float> values(static_cast<std::size_t>(rows_ * cols_));
    EXPECT_OK(kernels::download({.rows = rows(), .host = values.data()}, {.backend = &memory_.backend()}));
    return values;
  }

 private:
  kernels::Memory memory_;
  int64_t rows_, cols_;
};

// The backend, or null with the reason in `why` where this machine cannot run it.
inline const kernels::Backend* usable_backend(const char* name, std::string& why) {
  const auto backend = kernels::find_backend(name);
  if (!backend) return why = backend.error().message, nullptr;
  if (const Status status = (*backend)->supports(kernels::Dtype::f32); !status) return why = status.error().message, nullptr;
  return *backend;
}

}  // namespace rat::test

// Skips loudly on machines that cannot run the device.
#define RAT_REQUIRE_BACKEND(variable, name)                                       \
  std::string rat_why;                                                            \
  const ::rat::kernels::Backend* variable = ::rat::test::usable_backend(name, rat_why); \
  if (variable == nullptr) GTEST_SKIP() << rat_why
