// Zip files and pickles made by hand, so that every field can lie.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rat::test {

inline uint32_t crc32_of(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

template <class Number>
std::string le(Number value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

struct ZipEntry {
  std::string name, bytes;
  uint16_t method = 0, flags = 0;
  int64_t announced = -1;       // unpacked size; -1: the truth
  int64_t crc = -1;             // -1: the truth
  std::string local_name = {};  // "": the same
};

// Local headers with their bytes, the central directory, and its end record.
inline std::string zip_of(const std::vector<ZipEntry>& entries) {
  std::string out, directory;
  for (const ZipEntry& entry : entries) {
    const auto offset = static_cast<uint32_t>(out.size());
    const auto packed = static_cast<uint32_t>(entry.bytes.size());
    const auto size = entry.announced < 0 ? packed : static_cast<uint32_t>(entry.announced);
    const auto crc = entry.crc < 0 ? crc32_of(entry.bytes) : static_cast<uint32_t>(entry.crc);
    const std::string& local = entry.local_name.empty() ? entry.name : entry.local_name;
    const std::string common = le(entry.flags) + le(entry.method) + le(uint32_t{0}) + le(crc) + le(packed) + le(size);
    out += "PK\x03\x04" + le(uint16_t{20}) + common + le(static_cast<uint16_t>(local.size())) + le(uint16_t{0}) +
           local + entry.bytes;
    directory += "PK\x01\x02" + le(uint16_t{20}) + le(uint16_t{20}) + common +
                 le(static_cast<uint16_t>(entry.name.size())) + std::string(12, '\0') + le(offset) + entry.name;
  }
  const auto at = static_cast<uint32_t>(out.size()), length = static_cast<uint32_t>(directory.size());
  const auto count = static_cast<uint16_t>(entries.size());
  return out + directory + std::string("PK\x05\x06\0\0\0\0", 8) + le(count) + le(count) + le(length) + le(at) +
         std::string(2, '\0');
}

// Pieces of a pickle of protocol 2.
inline std::string text(std::string_view value) {
  return "X" + le(static_cast<uint32_t>(value.size())) + std::string(value);
}
inline std::string integer(int32_t value) { return "J" + le(value); }
inline std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string tuple(const std::string& items) { return "(" + items + "t"; }

struct PickledTensor {
  std::string key = "0", shape = integer(2), strides = integer(1);
  int32_t count = 2, offset = 0;
  std::string storage = "FloatStorage", location = "cpu";
};

inline std::string rebuild() { return global("torch._utils", "_rebuild_tensor_v2"); }
// The tuple of its arguments.
inline std::string pickled_arguments(const PickledTensor& tensor) {
  return "((" + text("storage") + global("torch", tensor.storage) + text(tensor.key) + text(tensor.location) +
         integer(tensor.count) + "tQ" + integer(tensor.offset) + tuple(tensor.shape) + tuple(tensor.strides) + "\x89" +
         global("collections", "OrderedDict") + ")Rt";
}
inline std::string pickled(const PickledTensor& tensor) { return rebuild() + pickled_arguments(tensor) + "R"; }
// A tensor with the attributes {"a": "b"}: function and type are what PyTorch writes there unless they lie.
inline std::string pickled_with_attributes(const std::string& function, const std::string& type,
                                           const std::string& arguments) {
  return global("torch._tensor", "_rebuild_from_type_v2") +
         tuple(function + type + arguments + "}" + text("a") + text("b") + "s") + "R";
}

inline std::string pickle_of(const std::string& body) { return "\x80\x02" + body + "."; }

// {"w": tensor} with the storage "0" of two floats.
inline std::string checkpoint_of(const std::string& pickled_bytes, std::vector<ZipEntry> more = {}) {
  std::vector<ZipEntry> entries{{.name = "a/data.pkl", .bytes = pickled_bytes},
                                {.name = "a/data/0", .bytes = le(1.5f) + le(-2.0f)}};
  entries.insert(entries.end(), more.begin(), more.end());
  return zip_of(entries);
}
inline std::string dict_of(const std::string& value) { return pickle_of("}" + text("w") + value + "s"); }

}  // namespace rat::test
