// Which process owns a run, and whether it is still there. A pid alone is reused; pid, start time and boot are not.
#pragma once

#include <cstdint>
#include <string>

#include "experiments/store/store.h"

namespace rat {

struct ProcessIdentity {
  int64_t pid = 0;
  int64_t start = 0;    // /proc/<pid>/stat field 22, clock ticks after boot
  std::string boot_id;  // /proc/sys/kernel/random/boot_id
  std::string host;
  bool operator==(const ProcessIdentity&) const = default;
};

const ProcessIdentity& this_process();
bool same_boot(const ProcessIdentity& owner);         // this host since its last boot
bool process_is_alive(const ProcessIdentity& owner);  // only meaningful for the same boot

// What a stored `queued` or `running` really is.
struct TrueState {
  RunState state;
  std::string error;  // set where the state is not the stored one
};
TrueState derive_state(RunState stored, const ProcessIdentity& owner, double heartbeat_at, double now);

// A process of another machine counts as gone after this long without a heartbeat.
inline constexpr double foreign_heartbeat_limit_s = 120;

// Facts of this machine and build for the run row.
std::string cpu_model();
std::string build_description();
double unix_now();

}  // namespace rat
