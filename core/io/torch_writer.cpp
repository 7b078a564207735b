// The one pickle we write: protocol 2, an OrderedDict of name -> _rebuild_tensor_v2(storage, ...), as torch.save makes.
#include <zip.h>

#include <cstring>
#include <memory>
#include <set>

#include "core/io/atomic_file.h"
#include "core/io/torch_file.h"

namespace rat {
namespace {

class PickleWriter {
 public:
  std::string finish() && { return std::move(bytes_) + "."; }

  void op(char code) { bytes_ += code; }
  void global(const char* module, const char* name) { bytes_ += fmt::format("c{}\n{}\n", module, name); }
  void text(std::string_view value) { sized('X', static_cast<uint32_t>(value.size())).append(value); }
  void integer(int64_t value) {
    if (value >= 0 && value < 256) {
      bytes_ += {'K', static_cast<char>(value)};
    } else if (value >= 0 && value <= INT32_MAX) {
      sized('J', static_cast<uint32_t>(value));
    } else {
      bytes_ += "\x8a\x08";
      bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
  }
  void integers(std::span<const int64_t> values) {
    op('(');
    for (const int64_t value : values) integer(value);
    op('t');
  }
  void start() { bytes_ += "\x80\x02"; }
  void empty_ordered_dict() {
    global("collections", "OrderedDict");
    bytes_ += ")R";
  }

 private:
  std::string& sized(char code, uint32_t size) {
    bytes_ += code;
    return bytes_.append(reinterpret_cast<const char*>(&size), sizeof size);
  }
  std::string bytes_;
};

std::vector<int64_t> row_major_strides(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

void write_tensor(PickleWriter& out, const TensorToWrite& tensor, std::size_t index) {
  out.text(tensor.name);
  out.global("torch._utils", "_rebuild_tensor_v2");
  out.op('(');
  out.op('(');  // ('storage', torch.FloatStorage, key, 'cpu', count)
  out.text("storage");
  out.global("torch", "FloatStorage");
  out.text(std::to_string(index));
  out.text("cpu");
  out.integer(static_cast<int64_t>(tensor.f32.size()));
  out.op('t');
  out.op('Q');
  out.integer(0);
  out.integers(tensor.shape);
  out.integers(row_major_strides(tensor.shape));
  out.op('\x89');  // requires_grad = False
  out.empty_ordered_dict();
  out.op('t');
  out.op('R');
}

std::string pickle_of(std::span<const TensorToWrite> tensors, const std::string& key) {
  PickleWriter out;
  out.start();
  if (!key.empty()) {
    out.op('}');
    out.text(key);
  }
  out.empty_ordered_dict();
  out.op('(');
  for (std::size_t i = 0; i < tensors.size(); ++i) write_tensor(out, tensors[i], i);
  out.op('u');
  if (!key.empty()) out.op('s');
  return std::move(out).finish();
}

struct Discard {
  void operator()(zip_t* archive) const { zip_discard(archive); }
};
using Archive = std::unique_ptr<zip_t, Discard>;

// `bytes` must live until the archive is closed.
Status add_entry(zip_t* archive, const std::string& name, std::string_view bytes) {
  zip_source_t* source = zip_source_buffer(archive, bytes.data(), bytes.size(), 0);
  const zip_int64_t index = source ? zip_file_add(archive, name.c_str(), source, ZIP_FL_ENC_UTF_8) : -1;
  if (index < 0) {
    if (source) zip_source_free(source);
    return fail(ErrorCode::io_failure, "the entry '{}' cannot be added: {}", name, zip_strerror(archive));
  }
  // PyTorch reads stored entries only.
  zip_set_file_compression(archive, static_cast<zip_uint64_t>(index), ZIP_CM_STORE, 0);
  zip_file_set_mtime(archive, static_cast<zip_uint64_t>(index), 315532800, 0);  // 1980: equal weights, equal files
  return ok();
}

Status check(std::span<const TensorToWrite> tensors) {
  std::set<std::string> names;
  for (const TensorToWrite& tensor : tensors) {
    uint64_t count = 1;
    for (const int64_t size : tensor.shape) count *= static_cast<uint64_t>(size);
    if (count != tensor.f32.size() || !tensor.i32.empty() || !names.insert(tensor.name).second)
      return fail(ErrorCode::invalid_argument,
                  "tensor '{}' is not float, named twice or of another size than its shape", tensor.name);
  }
  return ok();
}

}  // namespace

Status write_torch_file(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                        const std::string& key) {
  RAT_TRY(check(tensors));
  const std::string pickled = pickle_of(tensors, key);
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* sink = zip_source_buffer_create(nullptr, 0, 0, &error);
  Archive archive(sink ? zip_open_from_source(sink, ZIP_TRUNCATE, &error) : nullptr);
  if (!archive) {
    if (sink) zip_source_free(sink);
    return fail(ErrorCode::io_failure, "{} cannot be made: {}", path.string(), zip_error_strerror(&error));
  }
  zip_source_keep(sink);  // the bytes are read after the archive is closed
  const std::unique_ptr<zip_source_t, void (*)(zip_source_t*)> keeper(sink, zip_source_free);
  const auto build = [&]() -> Status {
    RAT_TRY(add_entry(archive.get(), "archive/data.pkl", pickled));
    RAT_TRY(add_entry(archive.get(), "archive/byteorder", "little"));
    for (std::size_t i = 0; i < tensors.size(); ++i)
      RAT_TRY(add_entry(archive.get(), fmt::format("archive/data/{}", i),
                        {reinterpret_cast<const char*>(tensors[i].f32.data()), tensors[i].f32.size_bytes()}));
    RAT_TRY(add_entry(archive.get(), "archive/version", "3\n"));
    if (zip_close(archive.get()) != 0) return fail(ErrorCode::io_failure, "{}", zip_strerror(archive.get()));
    (void)archive.release();  // closed
    return ok();
  };
  if (const Status built = build(); !built)
    return fail(built.error().code, "{} cannot be made: {}", path.string(), built.error().message);
  RAT_ASSIGN(AtomicFile file, AtomicFile::create(path));
  if (zip_source_open(sink) != 0) return fail(ErrorCode::io_failure, "{} cannot be made", path.string());
  std::vector<char> block(1 << 20);
  zip_int64_t got = 0;
  Status written = ok();
  while (written && (got = zip_source_read(sink, block.data(), block.size())) > 0)
    written = file.write({block.data(), static_cast<std::size_t>(got)});
  zip_source_close(sink);
  RAT_TRY(written);
  if (got < 0) return fail(ErrorCode::io_failure, "{} cannot be made", path.string());
  return file.commit();
}

}  // namespace rat
