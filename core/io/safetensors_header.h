// The JSON header of a safetensors file, checked in full against the size of the data section.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/io/safetensors.h"

namespace rat {

struct SafetensorsHeader {
  std::map<std::string, TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
};

inline constexpr uint64_t max_safetensors_header = 100'000'000;  // bytes; the reference reader's limit
inline constexpr std::size_t max_tensor_rank = 64;
inline constexpr std::size_t max_tensor_name = 4096;  // bytes
inline constexpr std::size_t max_tensor_count = 1'000'000;

// `header` is the JSON text alone, `data_bytes` what follows it in the file. Rules, each an error of its own: UTF-8
// JSON object without duplicate or unknown keys; string-to-string metadata; plain non-negative integers; tensors
// contiguous from 0 to `data_bytes` without holes or overlap; sizes that match shape and dtype without overflow.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view header, uint64_t data_bytes);

}  // namespace rat
