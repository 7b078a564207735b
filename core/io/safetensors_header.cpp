#include "core/io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

namespace rat {
namespace {

struct DTypeRow {
  DType dtype;
  std::string_view name;
  int64_t size;  // bytes
};
constexpr std::array<DTypeRow, 13> dtypes{{{DType::f32, "F32", 4},
                                           {DType::f64, "F64", 8},
                                           {DType::f16, "F16", 2},
                                           {DType::bf16, "BF16", 2},
                                           {DType::i64, "I64", 8},
                                           {DType::i32, "I32", 4},
                                           {DType::i16, "I16", 2},
                                           {DType::i8, "I8", 1},
                                           {DType::u64, "U64", 8},
                                           {DType::u32, "U32", 4},
                                           {DType::u16, "U16", 2},
                                           {DType::u8, "U8", 1},
                                           {DType::boolean, "BOOL", 1}}};

const DTypeRow& row_of(DType dtype) {
  const auto row = std::ranges::find(dtypes, dtype, &DTypeRow::dtype);
  RAT_CHECK(row != dtypes.end(), "every dtype has a row");
  return *row;
}

// Names go into messages and terminals: keep them short and printable.
std::string printable(std::string_view name) {
  std::string text;
  for (const char c : name.substr(0, 80)) text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return name.size() > 80 ? text + "..." : text;
}

// Receives the parser's events and accepts exactly {name: {dtype, shape, data_offsets}, "__metadata__": {string:
// string}}. A tree parser would silently keep the last of two equal keys and would build a nested document before we
// see it.
class HeaderHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  SafetensorsHeader header;
  std::optional<std::string> problem;

  bool null() override { return refuse("holds null"); }
  bool boolean(bool) override { return refuse("holds true or false"); }
  bool number_integer(number_integer_t value) override {
    return refuse(fmt::format("holds the number {}{}", value < 0 ? "" : "-", value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return refuse(fmt::format("holds the number {}, which is not a whole number below 2^64", printable(text)));
  }
  bool binary(binary_t&) override { return refuse("holds binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::shape) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        return refuse(fmt::format("has the dimension {}", value));
      if (tensor_.shape.size() == max_tensor_rank)
        return refuse(fmt::format("has more than {} dimensions", max_tensor_rank));
      tensor_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ == Place::offsets && offsets_ < 2) {
      (offsets_++ == 0 ? tensor_.begin : tensor_.end) = value;
      return true;
    }
    return refuse("holds a number where none belongs");
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata)
      return header.metadata.emplace(key_, value).second ||
             refuse(fmt::format("has the metadata key '{}' twice", printable(key_)));
    if (place_ != Place::tensor || key_ != "dtype") return refuse("holds a string where none belongs");
    const auto row = std::ranges::find(dtypes, value, &DTypeRow::name);
    if (row == dtypes.end())
      return refuse(fmt::format("has the dtype '{}', which this reader does not know", printable(value)));
    tensor_.dtype = row->dtype;
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::outside) return enter(Place::top);
    if (place_ != Place::top) return refuse("nests an object where none belongs");
    if (name_ == "__metadata__") return enter(Place::metadata);
    tensor_ = {};
    offsets_ = fields_ = 0;
    return enter(Place::tensor);
  }

  bool key(string_t& value) override {
    if (place_ == Place::top) return top_key(value);
    if (place_ == Place::tensor) {
      const auto field = std::ranges::find(field_names, value);
      if (field == field_names.end()) return refuse(fmt::format("has the unknown field '{}'", printable(value)));
      const unsigned bit = 1u << (field - field_names.begin());
      if (fields_ & bit) return refuse(fmt::format("has the field '{}' twice", value));
      fields_ |= bit;
    }
    key_ = value;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::tensor || key_ == "dtype") return refuse("has an array where none belongs");
    return enter(key_ == "shape" ? Place::shape : Place::offsets);
  }

  bool end_array() override {
    if (place_ == Place::offsets && offsets_ != 2) return refuse("has data_offsets without both ends");
    return enter(Place::tensor);
  }

  bool end_object() override {
    if (place_ == Place::tensor) {
      if (fields_ != 7) return refuse("lacks dtype, shape or data_offsets");
      if (header.tensors.size() == max_tensor_count)
        return refuse(fmt::format("is one of more than {} tensors", max_tensor_count));
      if (!header.tensors.emplace(name_, tensor_).second) return refuse("appears twice");
    }
    return enter(place_ == Place::top ? Place::outside : Place::top);
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    if (!problem)
      problem = fmt::format("is not valid JSON at byte {} of the header ({})", position, printable(error.what()));
    return false;
  }

 private:
  enum class Place { outside, top, metadata, tensor, shape, offsets };
  static constexpr std::array<std::string_view, 3> field_names{"dtype", "shape", "data_offsets"};

  bool enter(Place place) {
    place_ = place;
    return true;
  }

  bool top_key(const std::string& name) {
    name_ = name;
    if (name.size() > max_tensor_name)
      return refuse(fmt::format("has a name of {} bytes; at most {} are allowed", name.size(), max_tensor_name));
    if (std::ranges::any_of(name, [](char c) { return static_cast<unsigned char>(c) < 0x20; }))
      return refuse("has a control character in its name");
    if (name == "__metadata__" && std::exchange(seen_metadata_, true)) return refuse("appears twice");
    return true;
  }

  bool refuse(std::string_view what) {
    if (place_ == Place::outside)
      problem = "has a header that is not a JSON object";
    else if (place_ == Place::metadata || name_ == "__metadata__")
      problem = fmt::format("has bad metadata: the header {}", what);
    else
      problem = fmt::format("has a bad header: tensor '{}' {}", printable(name_), what);
    return false;
  }

  Place place_ = Place::outside;
  std::string name_, key_;
  TensorInfo tensor_;
  int offsets_ = 0;
  unsigned fields_ = 0;  // one bit per field_names entry seen
  bool seen_metadata_ = false;
};

// Bytes that shape and dtype ask for, or nothing when the product does not fit.
std::optional<uint64_t> byte_count(const TensorInfo& tensor) {
  uint64_t bytes = static_cast<uint64_t>(dtype_size(tensor.dtype));
  for (const int64_t dim : tensor.shape)
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes)) return std::nullopt;
  if (bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return bytes;
}

Status check_layout(const std::map<std::string, TensorInfo>& tensors, uint64_t data_bytes) {
  std::vector<std::pair<const std::string*, const TensorInfo*>> order;
  order.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) order.emplace_back(&name, &tensor);
  std::ranges::sort(order, {}, [](const auto& entry) { return std::pair(entry.second->begin, entry.second->end); });

  uint64_t end = 0;
  for (const auto& [name, tensor] : order) {
    const std::string shown = printable(*name);
    if (tensor->begin != end || tensor->end < tensor->begin)
      return fail(ErrorCode::corrupt_data,
                  "tensor '{}' covers bytes {} to {} of the data although the tensor before it ends at {}", shown,
                  tensor->begin, tensor->end, end);
    const auto bytes = byte_count(*tensor);
    if (!bytes) return fail(ErrorCode::corrupt_data, "tensor '{}' has a shape whose size in bytes overflows", shown);
    if (*bytes != tensor->end - tensor->begin)
      return fail(ErrorCode::corrupt_data, "tensor '{}' has {} bytes of data where its shape and dtype ask for {}",
                  shown, tensor->end - tensor->begin, *bytes);
    end = tensor->end;
  }
  if (end != data_bytes)
    return fail(ErrorCode::corrupt_data, "its tensors end at byte {} of the data section, which has {} bytes", end,
                data_bytes);
  return ok();
}

}  // namespace

std::string_view dtype_name(DType dtype) { return row_of(dtype).name; }
int64_t dtype_size(DType dtype) { return row_of(dtype).size; }

int64_t TensorInfo::count() const {
  int64_t product = 1;
  for (const int64_t dim : shape) product *= dim;  // checked against the file when the header was read
  return product;
}

Result<SafetensorsHeader> parse_safetensors_header(std::string_view header, uint64_t data_bytes) {
  // Leading spaces are legal (the reference reader accepts them); a byte-order mark, which the JSON library would
  // skip, and a NUL, which it would take for the end of the text, are not.
  const std::size_t first = header.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || header[first] != '{')
    return fail(ErrorCode::corrupt_data, "has a header that does not begin with '{{'");
  if (header.find('\0') != std::string_view::npos) return fail(ErrorCode::corrupt_data, "has a NUL byte in its header");

  HeaderHandler handler;
  const bool parsed = nlohmann::json::sax_parse(header, &handler);
  if (handler.problem) return Error{ErrorCode::corrupt_data, *handler.problem};
  if (!parsed) return fail(ErrorCode::corrupt_data, "has a header that is not valid JSON");
  if (auto layout = check_layout(handler.header.tensors, data_bytes); !layout)
    return fail(ErrorCode::corrupt_data, "has a bad header: {}", layout.error().message);
  return std::move(handler.header);
}

}  // namespace rat
