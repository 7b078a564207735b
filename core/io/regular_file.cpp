#include "core/io/regular_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

namespace rat {
namespace {

std::string_view kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "not a regular file";
}

Error open_error(const std::string& name, int error) {
  if (error == ENOENT) return fail(ErrorCode::not_found, "There is no file {}; check the path", name);
  if (error == EACCES || error == EPERM)
    return fail(ErrorCode::io_failure, "{} cannot be read: permission denied; change its permissions", name);
  return fail(ErrorCode::io_failure, "{} cannot be opened: {}", name, std::strerror(error));
}

}  // namespace

FileDescriptor::FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  FileDescriptor old(std::exchange(fd_, other.release()));
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

int FileDescriptor::release() { return std::exchange(fd_, -1); }

Result<RegularFile> RegularFile::open(const std::filesystem::path& path) {
  // stat before open: opening a pipe can hang and opening a device can have effects.
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return open_error(path.string(), errno);
  if (!S_ISREG(info.st_mode))
    return fail(ErrorCode::invalid_argument, "{} is {}; give a regular file", path.string(), kind_of(info.st_mode));
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (fd.get() < 0) return open_error(path.string(), errno);
  return adopt(std::move(fd), path.string());
}

Result<RegularFile> RegularFile::adopt(FileDescriptor fd, const std::string& name) {
  // Asked again of the descriptor: the path may name something else by now.
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return open_error(name, errno);
  if (!S_ISREG(info.st_mode))
    return fail(ErrorCode::invalid_argument, "{} is {}; give a regular file", name, kind_of(info.st_mode));
  RegularFile file;
  file.fd_ = std::move(fd);
  file.name_ = name;
  file.size_ = static_cast<uint64_t>(info.st_size);
  file.modified_ns_ = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
  return file;
}

Status RegularFile::read_at(uint64_t offset, std::span<char> out) const {
  while (!out.empty()) {
    const std::size_t piece = std::min<std::size_t>(out.size(), std::size_t{1} << 30);  // Linux reads at most 2 GiB
    const ssize_t got = ::pread(fd_.get(), out.data(), piece, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return fail(ErrorCode::io_failure, "Reading {} at byte {} failed: {}", name_, offset, std::strerror(errno));
    if (got == 0)
      return fail(ErrorCode::io_failure,
                  "{} ended at byte {} although it had {} bytes when it was opened; it was shortened "
                  "while in use",
                  name_, offset, size_);
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
  return ok();
}

}  // namespace rat
