// Reading and writing safetensors files. The reader trusts nothing: every rule of the format is checked, with the
// tensor's name in the error; it never reads past the file, never follows a device or a pipe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/status.h"

namespace rat {

enum class DType : uint8_t { f32, f64, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, boolean };
std::string_view dtype_name(DType dtype);  // "F32", "BF16", ...
int64_t dtype_size(DType dtype);

struct TensorInfo {
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes within the data section
  int64_t count() const;
};

// An open file whose header has been checked in full. Values are read on demand.
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::filesystem::path& path);
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  const std::map<std::string, TensorInfo>& tensors() const;
  const std::map<std::string, std::string>& metadata() const;
  bool contains(const std::string& name) const;
  // Converts F64, F16 and BF16 to float; anything else is an error that names the tensor.
  Result<std::vector<float>> read_floats(const std::string& name) const;
  Result<std::vector<int32_t>> read_ints(const std::string& name) const;

 private:
  SafetensorsFile();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A tensor to write; the caller keeps the data alive.
struct TensorToWrite {
  std::string name;
  std::vector<int64_t> shape;
  std::span<const float> f32;  // exactly one of the two is set
  std::span<const int32_t> i32;
};

// Atomic: temporary file in the same folder, fsync, rename, fsync of the folder. On any error the old file is intact
// and the temporary file is gone.
Status write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                         const std::map<std::string, std::string>& metadata);
// The same protocol for any bytes; used by every file we write.
Status write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

}  // namespace rat
