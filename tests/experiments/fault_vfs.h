// A file layer under SQLite that fails, or ends the process, at a chosen write. Everything else goes to the real one.
#pragma once

#include <cstdint>

namespace rat {

enum class Fault {
  none,       // only counts
  io_error,   // EIO: a write, a sync or a truncation fails as a broken disk lets it fail
  disk_full,  // ENOSPC: a write fails, a sync does not
  kill,       // the process is killed there, with what was written so far in the kernel's hands
};

// From here on every connection that is opened uses it. Once a process.
void install_fault_vfs();
// Counts the writes, syncs, truncations and deletions from now on; the `at`-th (from 1) has the fault, once.
void arm_fault(Fault fault, int64_t at);
void disarm_fault();
int64_t writes_seen();  // since it was armed
bool fault_happened();  // since it was armed

}  // namespace rat
