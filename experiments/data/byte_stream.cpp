#include "experiments/data/byte_stream.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/io/sha256.h"

namespace rat {
namespace {

constexpr std::size_t block_bytes = std::size_t{1} << 20;

Error stopped() { return fail(ErrorCode::cancelled, "Reading the data was stopped"); }

// An unlinked file in $TMPDIR: it disappears with the process, however that ends.
Result<FileDescriptor> unnamed_temporary() {
  const char* folder = std::getenv("TMPDIR");
  std::string name = std::string(folder && *folder ? folder : "/tmp") + "/rat-stdin-XXXXXX";
  FileDescriptor fd(::mkstemp(name.data()));
  if (fd.get() < 0)
    return fail(ErrorCode::io_failure, "Standard input cannot be kept in {}: {}; set TMPDIR to a writable folder", name,
                std::strerror(errno));
  ::unlink(name.c_str());
  return fd;
}

Status write_all(int fd, std::span<const char> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0)
      return fail(ErrorCode::io_failure,
                  "Keeping standard input in a temporary file failed: {}; set TMPDIR to a folder with more room",
                  std::strerror(errno));
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return ok();
}

}  // namespace

Result<ByteStream> ByteStream::from_files(const std::vector<std::filesystem::path>& files, const StopFlag* stop,
                                          uint64_t keep_below, const Inspect& inspect) {
  ByteStream stream;
  for (const std::filesystem::path& path : files) {
    RAT_ASSIGN(const RegularFile file, RegularFile::open(path));
    stream.parts_.push_back({path, stream.size_, file.size(), file.modified_ns()});
    stream.size_ += file.size();
  }
  RAT_TRY(stream.hash_and_keep(stop, keep_below, inspect));
  return stream;
}

ByteStream ByteStream::from_memory(std::vector<char> bytes) {
  ByteStream stream;
  stream.size_ = bytes.size();
  stream.hash_ = sha256_hex({bytes.data(), bytes.size()});
  stream.memory_ = std::move(bytes);
  return stream;
}

Result<ByteStream> ByteStream::from_descriptor(int fd, const StopFlag* stop, uint64_t keep_below) {
  RAT_ASSIGN(FileDescriptor spool, unnamed_temporary());
  std::vector<char> block(block_bytes);
  for (;;) {
    if (stop && stop->requested()) return stopped();
    const ssize_t got = ::read(fd, block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(ErrorCode::io_failure, "Reading standard input failed: {}", std::strerror(errno));
    if (got == 0) break;
    RAT_TRY(write_all(spool.get(), {block.data(), static_cast<std::size_t>(got)}));
  }
  RAT_ASSIGN(RegularFile file, RegularFile::adopt(std::move(spool), "standard input"));
  ByteStream stream;
  stream.size_ = file.size();
  stream.spooled_ = std::make_shared<const RegularFile>(std::move(file));
  RAT_TRY(stream.hash_and_keep(stop, keep_below));
  return stream;
}

// One pass over everything: the hash covers every byte, and a small stream stays in memory as it was hashed.
Status ByteStream::hash_and_keep(const StopFlag* stop, uint64_t keep_below, const Inspect& inspect) {
  Sha256 hash;
  const bool keep = size_ <= keep_below;
  std::vector<char> kept, block(std::min<uint64_t>(block_bytes, size_));
  if (keep) kept.reserve(size_);
  for (uint64_t offset = 0; offset < size_; offset += block.size()) {
    if (stop && stop->requested()) return stopped();
    block.resize(std::min<uint64_t>(block_bytes, size_ - offset));
    RAT_TRY(read(offset, block));
    hash.update({block.data(), block.size()});
    if (inspect) RAT_TRY(inspect(offset, block));
    if (keep) kept.insert(kept.end(), block.begin(), block.end());
  }
  memory_ = std::move(kept);
  hash_ = hash.hex();
  return ok();
}

Status ByteStream::read(uint64_t offset, std::span<char> out) const {
  RAT_CHECK(offset <= size_ && out.size() <= size_ - offset, "reads stay inside the stream");
  if (!memory_.empty()) {
    std::memcpy(out.data(), memory_.data() + offset, out.size());
    return ok();
  }
  if (spooled_) return spooled_->read_at(offset, out);
  auto part = std::ranges::upper_bound(parts_, offset, {}, &Part::begin);  // the first that begins after offset
  for (--part; !out.empty(); ++part) {
    const uint64_t within = offset - part->begin;
    const std::size_t n = std::min<uint64_t>(out.size(), part->size - within);
    if (n > 0) RAT_TRY(read_part(*part, within, out.first(n)));
    out = out.subspan(n);
    offset += n;
  }
  return ok();
}

Status ByteStream::read_part(const Part& part, uint64_t offset, std::span<char> out) const {
  // Opened for each read: a folder may have more files than a process may hold open.
  RAT_ASSIGN(const RegularFile file, RegularFile::open(part.path));
  if (file.size() != part.size || file.modified_ns() != part.modified_ns)
    return fail(ErrorCode::io_failure, "{} changed while it was in use ({} bytes, {} now); start the run again",
                part.path.string(), part.size, file.size());
  return file.read_at(offset, out);
}

}  // namespace rat
