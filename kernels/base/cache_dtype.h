// In which precision generation keeps keys and values from one token to the next.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/status.h"

namespace rat::kernels {

enum class CacheDtype : uint8_t {
  f32,   // layers computed op by op
  bf16,  // layers that a GPU computes whole
  fp8,   // the same in e4m3, each row of a head with a power of two of its own: half the bytes, and 2 for each row
};

std::vector<std::string> cache_dtype_names();  // of all
std::string_view cache_dtype_name(CacheDtype dtype);
Result<CacheDtype> parse_cache_dtype(std::string_view name);  // the sentence lists the known names

}  // namespace rat::kernels
