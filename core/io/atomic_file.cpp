#include "core/io/atomic_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string>
#include <utility>

#include "core/io/safetensors.h"

namespace rat {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view temporary_suffix = ".rat-tmp";

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

// ".<name>.<process id>.<counter>.rat-tmp": hidden, unique, and it tells who wrote it.
fs::path temporary_name(const fs::path& path) {
  static std::atomic<uint64_t> counter{0};
  return folder_of(path) /
         fmt::format(".{}.{}.{}{}", path.filename().string(), ::getpid(), counter.fetch_add(1), temporary_suffix);
}

Status sync_folder(const fs::path& folder) {
  const FileDescriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() >= 0 && ::fsync(fd.get()) == 0) return ok();
  if (errno == EINVAL || errno == ENOTSUP || errno == EACCES) return ok();  // a file system that cannot sync folders
  return fail(ErrorCode::io_failure,
              "The folder {} could not be synced: {}; the file just saved there may not survive a power cut",
              folder.string(), std::strerror(errno));
}

// The process id inside a temporary name, or -1.
pid_t writer_of(const std::string& name) {
  if (!name.starts_with('.') || !name.ends_with(temporary_suffix)) return -1;
  const std::string stem = name.substr(0, name.size() - temporary_suffix.size());
  const std::size_t counter = stem.rfind('.');
  if (counter == std::string::npos || counter == 0) return -1;
  const std::size_t pid_at = stem.rfind('.', counter - 1);
  if (pid_at == std::string::npos) return -1;
  pid_t pid = -1;
  const char* end = stem.data() + counter;
  const auto [rest, error] = std::from_chars(stem.data() + pid_at + 1, end, pid);
  return error == std::errc() && rest == end && pid > 0 ? pid : -1;
}

}  // namespace

AtomicFile::AtomicFile(FileDescriptor fd, fs::path path, fs::path temporary)
    : fd_(std::move(fd)), path_(std::move(path)), temporary_(std::move(temporary)) {}

Result<AtomicFile> AtomicFile::create(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode))
    return fail(ErrorCode::invalid_argument, "{} exists and is not a regular file; choose another name", path.string());
  const fs::path temporary = temporary_name(path);
  FileDescriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (fd.get() < 0) return fail(ErrorCode::io_failure, "{} cannot be written: {}", path.string(), std::strerror(errno));
  return AtomicFile(std::move(fd), path, temporary);
}

AtomicFile::~AtomicFile() {
  if (fd_.get() >= 0) ::unlink(temporary_.c_str());
}

Status AtomicFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0)
      return fail(ErrorCode::io_failure, "Writing {} failed: {}; the file that was there before is unchanged",
                  path_.string(), written < 0 ? std::strerror(errno) : "nothing was written");
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return ok();
}

Status AtomicFile::commit() {
  // A failed fsync must not be retried: the kernel may have dropped the pages (PostgreSQL's fsync finding).
  if (::fsync(fd_.get()) != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0)
    return fail(ErrorCode::io_failure, "Saving {} failed: {}; the file that was there before is unchanged",
                path_.string(), std::strerror(errno));
  const FileDescriptor done(fd_.release());
  return sync_folder(folder_of(path_));
}

Status write_file_atomically(const fs::path& path, std::string_view bytes) {
  RAT_ASSIGN(AtomicFile file, AtomicFile::create(path));
  RAT_TRY(file.write(bytes));
  return file.commit();
}

void remove_stale_temporaries(const fs::path& folder) {
  std::error_code ignored;  // a folder that cannot be read has nothing we could remove
  for (fs::directory_iterator it(folder, ignored), end; !ignored && it != end; it.increment(ignored)) {
    const pid_t writer = writer_of(it->path().filename().string());
    if (writer > 0 && ::kill(writer, 0) != 0 && errno == ESRCH) ::unlink(it->path().c_str());
  }
}

}  // namespace rat
