// The cache of decoding: loaded at once from a sequence, it holds what it would hold after the tokens one by one.
#include "core/mixers/key_cache.h"

#include <gtest/gtest.h>

#include "core/devices.h"
#include "core/mirrored.h"
#include "tests/support/compare.h"
#include "tests/support/random_values.h"

namespace rat {
namespace {

std::vector<float> contents(KeyCache& cache) {
  const kernels::Input k = cache.keys(), v = cache.values();
  std::vector<float> all(k.data, k.data + k.rows * k.cols);
  all.insert(all.end(), v.data, v.data + v.rows * v.cols);
  return all;
}

TEST(KeyCache, FillIsRememberingOneByOne) {
  constexpr int64_t width = 3;
  for (const TokenWindow window : {TokenWindow{-1, 0, 0}, TokenWindow{0, 0, 0}, TokenWindow{4, 0, 0},
                                   TokenWindow{4, 3, 0}, TokenWindow{2, 5, 4}, TokenWindow{0, 2, 1}})
    for (const int64_t tokens : {1, 2, 5, 6, 23}) {
      std::vector<float> k = test::uniform(static_cast<std::size_t>(tokens * width), 1);
      std::vector<float> v = test::uniform(static_cast<std::size_t>(tokens * width), 2);
      const kernels::Input keys(k.data(), tokens, width), values(v.data(), tokens, width);
      KeyCache at_once(kernels::cpu_backend(), 1, width, window), one_by_one(kernels::cpu_backend(), 1, width, window);
      ASSERT_OK(at_once.fill(keys, values, {}));
      for (int64_t t = 0; t < tokens; ++t)
        ASSERT_OK(one_by_one.remember(t, keys.row_range(t, 1), values.row_range(t, 1), {}));
      EXPECT_EQ(contents(at_once), contents(one_by_one)) << window.window << " " << window.dilation << " " << tokens;
      EXPECT_EQ(at_once.bytes(), 2 * window.cached(tokens) * width * 4);
    }
}

TEST(Mirrored, OnTheCpuBothSidesAreOneAndStartAsZeros) {
  Mirrored values(kernels::cpu_backend(), 5);
  EXPECT_EQ(values.host().data(), values.device().data());
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(values.device().data()) % 64, 0u);
  for (const float value : values.read()) EXPECT_EQ(value, 0.0f);
  values.host()[4] = 2;
  ASSERT_OK(values.prepare());
  values.device_writes();
  EXPECT_EQ(values.read()[4], 2.0f);
  EXPECT_TRUE(Mirrored(kernels::cpu_backend(), 0).host().empty());
}

TEST(Devices, TheCpuIsFirstAndUsable) {
  const std::vector<Device> all = devices();
  ASSERT_FALSE(all.empty());
  EXPECT_EQ(all.front().name, "cpu");
  EXPECT_EQ(all.front().problem, "");
  EXPECT_EQ(all.front().dtypes.front(), "f32");
  for (const Device& device : all) EXPECT_EQ(device.dtypes.empty(), !device.problem.empty()) << device.name;
}

}  // namespace
}  // namespace rat
