#include "kernels/base/cache_dtype.h"

#include <array>
#include <utility>

namespace rat::kernels {
namespace {

constexpr std::array names{std::pair{CacheDtype::f32, "f32"}, std::pair{CacheDtype::bf16, "bf16"},
                           std::pair{CacheDtype::fp8, "fp8"}};

}  // namespace

std::vector<std::string> cache_dtype_names() {
  std::vector<std::string> all;
  for (const auto& [dtype, name] : names) all.emplace_back(name);
  return all;
}

std::string_view cache_dtype_name(CacheDtype dtype) { return names[static_cast<std::size_t>(dtype)].second; }

Result<CacheDtype> parse_cache_dtype(std::string_view wanted) {
  for (const auto& [dtype, name] : names)
    if (name == wanted) return dtype;
  return fail(ErrorCode::invalid_argument, "the cache's dtype is '{}'; it must be one of: {}", wanted,
              fmt::join(cache_dtype_names(), ", "));
}

}  // namespace rat::kernels
