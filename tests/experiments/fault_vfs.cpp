#include "tests/experiments/fault_vfs.h"

#include <signal.h>
#include <sqlite3.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <new>

namespace rat {
namespace {

std::atomic<Fault> armed = Fault::none;
std::atomic<int64_t> fail_at = 0, seen = 0;
std::atomic<bool> happened = false;
sqlite3_vfs* real_vfs = nullptr;
sqlite3_vfs vfs{};

// An open file: the real one lies behind it, in the space that szOsFile asks for.
struct File {
  sqlite3_file base;
  sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
  static File* of(sqlite3_file* file) { return reinterpret_cast<File*>(file); }
};

// What the next write is answered with: SQLITE_OK to go on to the real file.
int answer(int error, bool needs_space) {
  const int64_t count = ++seen;
  const Fault fault = armed;
  if (fault == Fault::none || count != fail_at) return SQLITE_OK;
  if (fault == Fault::disk_full && !needs_space) {  // a sync needs no space: the write after it is the one
    ++fail_at;
    return SQLITE_OK;
  }
  happened = true;
  if (fault == Fault::kill) kill(getpid(), SIGKILL);
  return fault == Fault::disk_full ? SQLITE_FULL : error;
}

int file_close(sqlite3_file* file) {
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods ? real->pMethods->xClose(real) : SQLITE_OK;
}
int file_read(sqlite3_file* file, void* to, int size, sqlite3_int64 at) {
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods->xRead(real, to, size, at);
}
int file_write(sqlite3_file* file, const void* from, int size, sqlite3_int64 at) {
  sqlite3_file* real = File::of(file)->real();
  if (const int code = answer(SQLITE_IOERR_WRITE, true); code != SQLITE_OK) {
    if (size > 1) (void)real->pMethods->xWrite(real, from, size / 2, at);  // half of it reached the disk
    return code;
  }
  return real->pMethods->xWrite(real, from, size, at);
}
int file_truncate(sqlite3_file* file, sqlite3_int64 size) {
  if (const int code = answer(SQLITE_IOERR_TRUNCATE, false); code != SQLITE_OK) return code;
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods->xTruncate(real, size);
}
int file_sync(sqlite3_file* file, int flags) {
  if (const int code = answer(SQLITE_IOERR_FSYNC, false); code != SQLITE_OK) return code;
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods->xSync(real, flags);
}
int file_size(sqlite3_file* file, sqlite3_int64* size) {
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods->xFileSize(real, size);
}
int file_lock(sqlite3_file* file, int level) {
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods->xLock(real, level);
}
int file_unlock(sqlite3_file* file, int level) {
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods->xUnlock(real, level);
}
int file_check_lock(sqlite3_file* file, int* locked) {
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods->xCheckReservedLock(real, locked);
}
int file_control(sqlite3_file* file, int operation, void* argument) {
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods->xFileControl(real, operation, argument);
}
int file_sector(sqlite3_file* file) {
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods->xSectorSize(real);
}
int file_traits(sqlite3_file* file) {
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods->xDeviceCharacteristics(real);
}
int file_shm_map(sqlite3_file* file, int page, int size, int extend, void volatile** memory) {
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods->xShmMap(real, page, size, extend, memory);
}
int file_shm_lock(sqlite3_file* file, int offset, int count, int flags) {
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods->xShmLock(real, offset, count, flags);
}
void file_shm_barrier(sqlite3_file* file) {
  sqlite3_file* real = File::of(file)->real();
  real->pMethods->xShmBarrier(real);
}
int file_shm_unmap(sqlite3_file* file, int remove) {
  sqlite3_file* real = File::of(file)->real();
  return real->pMethods->xShmUnmap(real, remove);
}

// Version 2: shared memory for the log's index, but no memory mapping of the database.
constexpr sqlite3_io_methods methods{
    2,           file_close,   file_read,     file_write,       file_truncate,  file_sync,
    file_size,   file_lock,    file_unlock,   file_check_lock,  file_control,   file_sector,
    file_traits, file_shm_map, file_shm_lock, file_shm_barrier, file_shm_unmap, nullptr,
    nullptr};

int open_file(sqlite3_vfs*, sqlite3_filename name, sqlite3_file* file, int flags, int* out_flags) {
  File* mine = new (file) File{};
  const int code = real_vfs->xOpen(real_vfs, name, mine->real(), flags, out_flags);
  // A file that could not be opened is not closed, unless the real layer wants it so.
  mine->base.pMethods = mine->real()->pMethods ? &methods : nullptr;
  return code;
}
int delete_file(sqlite3_vfs*, const char* name, int sync_folder) {
  if (const int code = answer(SQLITE_IOERR_DELETE, false); code != SQLITE_OK) return code;
  return real_vfs->xDelete(real_vfs, name, sync_folder);
}

}  // namespace

void install_fault_vfs() {
  if (real_vfs) return;
  real_vfs = sqlite3_vfs_find(nullptr);
  vfs = *real_vfs;  // the rest of its functions do not look at the object they are called on
  vfs.zName = "fault";
  vfs.pNext = nullptr;
  vfs.szOsFile = static_cast<int>(sizeof(File)) + real_vfs->szOsFile;
  vfs.xOpen = open_file;
  vfs.xDelete = delete_file;
  sqlite3_vfs_register(&vfs, 1);
}

void arm_fault(Fault fault, int64_t at) {
  seen = 0;
  happened = false;
  fail_at = at;
  armed = fault;
}
void disarm_fault() { armed = Fault::none; }
int64_t writes_seen() { return seen; }
bool fault_happened() { return happened; }

}  // namespace rat
