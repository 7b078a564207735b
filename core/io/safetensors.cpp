#include "core/io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <new>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>

#include "core/io/atomic_file.h"
#include "core/io/float_formats.h"
#include "core/io/regular_file.h"
#include "core/io/safetensors_header.h"

namespace rat {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian and is read without swapping");

constexpr std::size_t block_elements = 65536;  // converted at a time, so that a conversion needs little extra memory

// Reads `tensor` in blocks of Stored and hands each value to `convert`, which returns false to refuse it.
template <class Stored, class Out, class Convert>
Status read_converted(const RegularFile& file, uint64_t offset, std::vector<Out>& out, Convert convert) {
  std::vector<Stored> block(std::min(out.size(), block_elements));
  for (std::size_t done = 0; done < out.size(); done += block_elements) {
    const std::size_t n = std::min(block_elements, out.size() - done);
    RAT_TRY(file.read_at(offset + done * sizeof(Stored), {reinterpret_cast<char*>(block.data()), n * sizeof(Stored)}));
    for (std::size_t i = 0; i < n; ++i)
      if (!convert(block[i], out[done + i]))
        return fail(ErrorCode::corrupt_data, "element {} is {}, which does not fit 32 bits", done + i, block[i]);
  }
  return ok();
}

template <class Stored>
Status read_integers(const RegularFile& file, uint64_t offset, std::vector<int32_t>& out) {
  return read_converted<Stored>(file, offset, out, [](Stored value, int32_t& result) {
    result = static_cast<int32_t>(value);
    return std::in_range<int32_t>(value);
  });
}

Error prefixed(const std::string& file, const std::string& name, const Error& error) {
  return fail(error.code, "{}: tensor '{}': {}", file, name, error.message);
}

}  // namespace

struct SafetensorsFile::Impl {
  RegularFile file;
  uint64_t data_begin = 0;  // byte of the file where the data section starts
  SafetensorsHeader header;

  Result<const TensorInfo*> find(const std::string& name) const {
    const auto found = header.tensors.find(name);
    if (found == header.tensors.end())
      return fail(ErrorCode::not_found, "{} has no tensor '{}'; it holds {} others", file.name(), name,
                  header.tensors.size());
    return &found->second;
  }

  // A vector for the tensor's elements; a file may claim (sparsely) more than there is memory.
  template <class T>
  Result<std::vector<T>> allocate(const std::string& name, const TensorInfo& tensor) const {
    try {
      return std::vector<T>(static_cast<std::size_t>(tensor.count()));
    } catch (const std::exception&) {
      return fail(ErrorCode::unsupported, "{}: tensor '{}' has {} elements, more than fit into memory", file.name(),
                  name, tensor.count());
    }
  }
};

SafetensorsFile::SafetensorsFile() : impl_(std::make_unique<Impl>()) {}
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;
SafetensorsFile::~SafetensorsFile() = default;

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  RAT_ASSIGN(RegularFile file, RegularFile::open(path));
  if (file.size() < 8)
    return fail(ErrorCode::corrupt_data,
                "{} is not a safetensors file: it has {} bytes, fewer than the 8 of a header length", file.name(),
                file.size());
  uint64_t header_bytes = 0;
  RAT_TRY(file.read_at(0, {reinterpret_cast<char*>(&header_bytes), sizeof header_bytes}));
  if (header_bytes > max_safetensors_header)
    return fail(ErrorCode::corrupt_data,
                "{} is not a safetensors file: it announces a header of {} bytes; at most {} are allowed", file.name(),
                header_bytes, max_safetensors_header);
  if (header_bytes > file.size() - 8)
    return fail(ErrorCode::corrupt_data,
                "{} announces a header of {} bytes but has only {} bytes; it is truncated or not a "
                "safetensors file",
                file.name(), header_bytes, file.size());

  std::string text(header_bytes, '\0');
  RAT_TRY(file.read_at(8, text));
  auto header = parse_safetensors_header(text, file.size() - 8 - header_bytes);
  if (!header) return fail(header.error().code, "{} {}", file.name(), header.error().message);

  SafetensorsFile opened;
  *opened.impl_ = Impl{std::move(file), 8 + header_bytes, *std::move(header)};
  return opened;
}

const std::map<std::string, TensorInfo>& SafetensorsFile::tensors() const { return impl_->header.tensors; }
const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return impl_->header.metadata; }
bool SafetensorsFile::contains(const std::string& name) const { return impl_->header.tensors.contains(name); }

Result<std::vector<float>> SafetensorsFile::read_floats(const std::string& name) const {
  RAT_ASSIGN(const TensorInfo* tensor, impl_->find(name));
  RAT_ASSIGN(std::vector<float> values, impl_->allocate<float>(name, *tensor));
  const RegularFile& file = impl_->file;
  const uint64_t offset = impl_->data_begin + tensor->begin;
  const auto convert = [&]() -> Status {
    switch (tensor->dtype) {
      case DType::f32:
        return file.read_at(offset, {reinterpret_cast<char*>(values.data()), values.size() * sizeof(float)});
      case DType::f64:
        return read_converted<double>(file, offset, values, [](double v, float& r) {
          r = static_cast<float>(v);
          return true;
        });
      case DType::f16:
        return read_converted<uint16_t>(file, offset, values, [](uint16_t v, float& r) {
          r = half_to_float(v);
          return true;
        });
      case DType::bf16:
        return read_converted<uint16_t>(file, offset, values, [](uint16_t v, float& r) {
          r = bfloat_to_float(v);
          return true;
        });
      default:
        return fail(ErrorCode::unsupported, "holds {}, not floating-point numbers", dtype_name(tensor->dtype));
    }
  };
  if (auto status = convert(); !status) return prefixed(file.name(), name, status.error());
  return values;
}

Result<std::vector<int32_t>> SafetensorsFile::read_ints(const std::string& name) const {
  RAT_ASSIGN(const TensorInfo* tensor, impl_->find(name));
  RAT_ASSIGN(std::vector<int32_t> values, impl_->allocate<int32_t>(name, *tensor));
  const RegularFile& file = impl_->file;
  const uint64_t offset = impl_->data_begin + tensor->begin;
  const auto convert = [&]() -> Status {
    switch (tensor->dtype) {
      case DType::i64:
        return read_integers<int64_t>(file, offset, values);
      case DType::i32:
        return read_integers<int32_t>(file, offset, values);
      case DType::i16:
        return read_integers<int16_t>(file, offset, values);
      case DType::i8:
        return read_integers<int8_t>(file, offset, values);
      case DType::u64:
        return read_integers<uint64_t>(file, offset, values);
      case DType::u32:
        return read_integers<uint32_t>(file, offset, values);
      case DType::u16:
        return read_integers<uint16_t>(file, offset, values);
      case DType::u8:
        return read_integers<uint8_t>(file, offset, values);
      default:
        return fail(ErrorCode::unsupported, "holds {}, not whole numbers", dtype_name(tensor->dtype));
    }
  };
  if (auto status = convert(); !status) return prefixed(file.name(), name, status.error());
  return values;
}

namespace {

std::string_view bytes_of(const TensorToWrite& tensor) {
  if (!tensor.i32.empty()) return {reinterpret_cast<const char*>(tensor.i32.data()), tensor.i32.size_bytes()};
  return {reinterpret_cast<const char*>(tensor.f32.data()), tensor.f32.size_bytes()};
}

Status check_tensor(const TensorToWrite& tensor, std::set<std::string>& names) {
  if (tensor.name == "__metadata__" || tensor.name.size() > max_tensor_name || !names.insert(tensor.name).second)
    return fail(ErrorCode::invalid_argument,
                "The tensor name '{}' is reserved, too long or used twice; give another one", tensor.name);
  if (!tensor.f32.empty() && !tensor.i32.empty())
    return fail(ErrorCode::invalid_argument, "Tensor '{}' has both f32 and i32 values; set one of them", tensor.name);
  uint64_t count = 1;
  for (const int64_t dim : tensor.shape)
    if (dim < 0 || __builtin_mul_overflow(count, static_cast<uint64_t>(dim), &count))
      return fail(ErrorCode::invalid_argument, "Tensor '{}' has the dimension {}, which cannot be written", tensor.name,
                  dim);
  const std::size_t held = tensor.f32.size() + tensor.i32.size();
  if (count != held || tensor.shape.size() > max_tensor_rank)
    return fail(ErrorCode::shape_mismatch, "Tensor '{}' has {} values but its shape asks for {}", tensor.name, held,
                count);
  return ok();
}

// Length prefix and JSON, padded with spaces so that the data section is 8-byte aligned.
Result<std::string> header_bytes(std::span<const TensorToWrite> tensors,
                                 const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string> names;
  uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    RAT_TRY(check_tensor(tensor, names));
    const uint64_t end = offset + bytes_of(tensor).size();
    header[tensor.name] = {
        {"dtype", tensor.i32.empty() ? "F32" : "I32"}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string json;
  try {
    json = header.dump();
  } catch (const nlohmann::json::exception&) {
    return fail(ErrorCode::invalid_argument, "A tensor name or metadata text is not UTF-8, which the format asks for");
  }
  json.append((8 - json.size() % 8) % 8, ' ');
  if (json.size() > max_safetensors_header)
    return fail(ErrorCode::invalid_argument, "The header would have {} bytes; at most {} are allowed", json.size(),
                max_safetensors_header);
  const uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + json;
}

}  // namespace

Status write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                         const std::map<std::string, std::string>& metadata) {
  RAT_ASSIGN(const std::string header, header_bytes(tensors, metadata));
  RAT_ASSIGN(AtomicFile file, AtomicFile::create(path));
  RAT_TRY(file.write(header));
  for (const TensorToWrite& tensor : tensors) RAT_TRY(file.write(bytes_of(tensor)));
  return file.commit();
}

}  // namespace rat
