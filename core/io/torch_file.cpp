#include "core/io/torch_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <set>

#include "core/io/float_formats.h"
#include "core/io/pickle_reader.h"
#include "core/io/regular_file.h"
#include "core/io/zip_archive.h"

namespace rat {
namespace {

using pickle::Kind;
using pickle::TensorRef;
using pickle::Tree;

constexpr int max_nesting = 16;  // dicts in dicts that are looked into
constexpr std::size_t max_settings = 10'000;
constexpr std::size_t max_setting_length = 4096;  // bytes
constexpr std::string_view pickle_name = "data.pkl";

// Collects the dicts that hold tensors, and the plain values beside them. A dict may contain itself.
class Walk {
 public:
  explicit Walk(const Tree& tree) : tree_(tree) {}

  void visit(uint32_t index, const std::string& path, int depth) {
    if (depth > max_nesting || !on_path_.insert(index).second) return;
    const auto& items = tree_.nodes[index].items;
    std::map<std::string, const TensorRef*> tensors;
    for (std::size_t i = 0; i + 1 < items.size(); i += 2) {
      const std::string key = key_text(items[i]);
      const pickle::Node& value = tree_.nodes[items[i + 1]];
      const std::string inner = path.empty() ? key : path + "." + key;
      if (value.kind == Kind::tensor) tensors[key] = &tree_.tensors[static_cast<std::size_t>(value.integer)];
      if (value.kind == Kind::mapping && visited_++ < pickle::max_nodes) visit(items[i + 1], inner, depth + 1);
      add_setting(inner, value);
    }
    if (!tensors.empty()) found.emplace_back(path, std::move(tensors));
    on_path_.erase(index);
  }

  std::vector<std::pair<std::string, std::map<std::string, const TensorRef*>>> found;
  std::map<std::string, std::string> settings;

 private:
  std::string key_text(uint32_t index) const {
    const pickle::Node& key = tree_.nodes[index];
    if (key.kind == Kind::text) return std::string(key.text.substr(0, max_setting_length));
    return key.kind == Kind::integer ? std::to_string(key.integer) : "?";
  }
  void add_setting(const std::string& path, const pickle::Node& value) {
    if (settings.size() == max_settings || path.size() > max_setting_length) return;
    if (value.kind == Kind::text) settings[path] = value.text.substr(0, max_setting_length);
    if (value.kind == Kind::integer) settings[path] = std::to_string(value.integer);
    if (value.kind == Kind::boolean) settings[path] = value.integer ? "true" : "false";
    if (value.kind == Kind::real) settings[path] = fmt::format("{}", value.real);
  }

  const Tree& tree_;
  std::set<uint32_t> on_path_;
  std::size_t visited_ = 0;
};

// "archive/" of the one "archive/data.pkl", with the refusal of what only looks like a checkpoint.
Result<std::string> find_prefix(const ZipArchive& zip) {
  std::vector<std::string> prefixes;
  for (const auto& [entry, size] : zip.entries()) {
    const std::size_t slash = entry.find('/');
    if (slash != std::string::npos && std::string_view(entry).substr(slash + 1) == pickle_name)
      prefixes.push_back(entry.substr(0, slash + 1));
  }
  if (prefixes.size() != 1)
    return fail(ErrorCode::corrupt_data, "{} is a zip file with {} entries <folder>/{}, not a PyTorch checkpoint",
                zip.name(), prefixes.size(), pickle_name);
  if (zip.contains(prefixes.front() + "constants.pkl"))
    return fail(ErrorCode::unsupported,
                "{} is a TorchScript program, which this reader does not run; save the tensors alone: "
                "torch.save(model.state_dict(), FILE)",
                zip.name());
  return prefixes.front();
}

Status check_byte_order(const ZipArchive& zip, const std::string& prefix) {
  if (!zip.contains(prefix + "byteorder")) return ok();  // before PyTorch 2.1; little-endian machines
  RAT_ASSIGN(const std::vector<char> order, zip.read(prefix + "byteorder", 64));
  if (std::string_view(order.data(), order.size()) == "little") return ok();
  return fail(ErrorCode::unsupported, "{} was written on a big-endian machine; save it again on a little-endian one",
              zip.name());
}

// Element i of the storage bytes as float.
template <class Stored, class Convert>
void gather(const TensorRef& tensor, const std::vector<char>& bytes, std::vector<float>& out, Convert convert) {
  std::vector<int64_t> index(tensor.shape.size());
  int64_t at = tensor.offset;
  for (float& value : out) {
    Stored stored;
    std::memcpy(&stored, bytes.data() + static_cast<std::size_t>(at) * sizeof(Stored), sizeof stored);
    value = convert(stored);
    for (std::size_t axis = index.size(); axis-- > 0;) {  // the next index, last axis fastest
      at += tensor.strides[axis];
      if (++index[axis] < tensor.shape[axis]) break;
      at -= tensor.strides[axis] * tensor.shape[axis];
      index[axis] = 0;
    }
  }
}

Status convert(const TensorRef& tensor, const std::vector<char>& bytes, std::vector<float>& out) {
  switch (tensor.dtype) {
    case DType::f32:
      gather<float>(tensor, bytes, out, [](float v) { return v; });
      return ok();
    case DType::f64:
      gather<double>(tensor, bytes, out, [](double v) { return static_cast<float>(v); });
      return ok();
    case DType::f16:
      gather<uint16_t>(tensor, bytes, out, half_to_float);
      return ok();
    case DType::bf16:
      gather<uint16_t>(tensor, bytes, out, bfloat_to_float);
      return ok();
    default:
      return fail(ErrorCode::unsupported, "holds {}, not floating-point values", dtype_name(tensor.dtype));
  }
}

}  // namespace

struct TorchFile::Impl {
  explicit Impl(ZipArchive archive) : zip(std::move(archive)) {}

  ZipArchive zip;
  std::string prefix;
  std::vector<Dictionary> dictionaries;
  std::vector<std::map<std::string, TensorRef>> refs;  // same order
  std::map<std::string, std::string> settings;
  // The storage read last: tensors that share one come one after the other.
  std::string cached_key;
  std::vector<char> cached;

  // Every storage that a tensor needs must be there with exactly its size.
  Status check_storage(const std::string& name, const TensorRef& tensor) const {
    const std::string entry = prefix + "data/" + tensor.storage;
    const auto found = zip.entries().find(entry);
    if (found == zip.entries().end())
      return fail(ErrorCode::corrupt_data, "{}: tensor '{}' is in the storage '{}', which the file does not have",
                  zip.name(), name, entry);
    const uint64_t bytes =
        static_cast<uint64_t>(tensor.storage_count) * static_cast<uint64_t>(dtype_size(tensor.dtype));
    if (found->second == bytes) return ok();
    return fail(ErrorCode::corrupt_data, "{}: tensor '{}' is in a storage of {} {} elements, which has {} bytes",
                zip.name(), name, tensor.storage_count, dtype_name(tensor.dtype), found->second);
  }

  Status add(const std::string& path, const std::map<std::string, const TensorRef*>& tensors) {
    Dictionary dictionary{path, {}};
    std::map<std::string, TensorRef> own;
    for (const auto& [name, tensor] : tensors) {
      RAT_TRY(check_storage(path.empty() ? name : path + "." + name, *tensor));
      dictionary.tensors.emplace(name, TensorInfo{tensor->dtype, tensor->shape, 0, 0});
      own.emplace(name, *tensor);
    }
    dictionaries.push_back(std::move(dictionary));
    refs.push_back(std::move(own));
    return ok();
  }
};

TorchFile::TorchFile() = default;
TorchFile::TorchFile(TorchFile&&) noexcept = default;
TorchFile& TorchFile::operator=(TorchFile&&) noexcept = default;
TorchFile::~TorchFile() = default;

Result<TorchFile> TorchFile::open(const std::filesystem::path& path) {
  RAT_ASSIGN(const WeightsFormat format, weights_format(path));
  if (format == WeightsFormat::torch_legacy)
    return fail(ErrorCode::unsupported,
                "{} is in PyTorch's format from before version 1.6, which is a program without bounds; save it again "
                "with a newer PyTorch: torch.save(torch.load(FILE, weights_only=True), NEW_FILE)",
                path.string());
  if (format != WeightsFormat::torch_zip)
    return fail(ErrorCode::corrupt_data, "{} is not a PyTorch checkpoint: it is not a zip file", path.string());
  RAT_ASSIGN(ZipArchive zip, ZipArchive::open(path));
  TorchFile opened;
  opened.impl_ = std::make_unique<Impl>(std::move(zip));
  Impl& self = *opened.impl_;
  RAT_ASSIGN(self.prefix, find_prefix(self.zip));
  RAT_TRY(check_byte_order(self.zip, self.prefix));
  RAT_ASSIGN(std::vector<char> bytes, self.zip.read(self.prefix + std::string(pickle_name), pickle::max_bytes));
  auto tree = pickle::read(std::move(bytes));
  if (!tree) return fail(tree.error().code, "{} {}", self.zip.name(), tree.error().message);
  if (tree->nodes[tree->root].kind != Kind::mapping)
    return fail(ErrorCode::corrupt_data, "{} holds something else than a dict of tensors; save model.state_dict()",
                self.zip.name());
  Walk walk(*tree);
  walk.visit(tree->root, "", 0);
  if (walk.found.empty())
    return fail(ErrorCode::corrupt_data, "{} holds no tensors with names; save model.state_dict()", self.zip.name());
  for (const auto& [where, tensors] : walk.found) RAT_TRY(self.add(where, tensors));
  self.settings = std::move(walk.settings);
  return opened;
}

const std::vector<TorchFile::Dictionary>& TorchFile::dictionaries() const { return impl_->dictionaries; }
const std::map<std::string, std::string>& TorchFile::settings() const { return impl_->settings; }

Result<std::vector<float>> TorchFile::read_floats(const Dictionary& dictionary, const std::string& name) const {
  const auto index = static_cast<std::size_t>(&dictionary - impl_->dictionaries.data());
  RAT_CHECK(index < impl_->refs.size(), "the dictionary belongs to this file");
  const auto found = impl_->refs[index].find(name);
  if (found == impl_->refs[index].end())
    return fail(ErrorCode::not_found, "{} has no tensor '{}'", impl_->zip.name(), name);
  const TensorRef& tensor = found->second;
  if (impl_->cached_key != tensor.storage) {
    impl_->cached_key.clear();
    const std::string entry = impl_->prefix + "data/" + tensor.storage;
    RAT_ASSIGN(impl_->cached, impl_->zip.read(entry, impl_->zip.entries().at(entry)));
    impl_->cached_key = tensor.storage;
  }
  std::vector<float> values(static_cast<std::size_t>(tensor.count));
  if (const Status converted = convert(tensor, impl_->cached, values); !converted)
    return fail(converted.error().code, "{}: tensor '{}' {}", impl_->zip.name(), name, converted.error().message);
  return values;
}

Result<WeightsFormat> weights_format(const std::filesystem::path& path) {
  RAT_ASSIGN(const RegularFile file, RegularFile::open(path));
  std::array<char, 9> head{};
  const std::size_t n = std::min<uint64_t>(head.size(), file.size());
  RAT_TRY(file.read_at(0, {head.data(), n}));
  const std::string_view text(head.data(), n);
  if (text.starts_with("PK\x03\x04")) return WeightsFormat::torch_zip;
  // PROTO 2, then the ten bytes of the magic number of torch.save before 1.6.
  if (text.starts_with("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46")) return WeightsFormat::torch_legacy;
  uint64_t header = 0;
  if (n == head.size()) std::memcpy(&header, head.data(), sizeof header);
  const bool json = text.size() == 9 && (text[8] == '{' || text[8] == ' ' || text[8] == '\n' || text[8] == '\t');
  return json && header <= file.size() ? WeightsFormat::safetensors : WeightsFormat::unknown;
}

}  // namespace rat
