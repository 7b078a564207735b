#include "experiments/store/process.h"

#include <fmt/format.h>
#include <sqlite3.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <fstream>
#include <sstream>

#include "build_info.h"

namespace rat {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Field 22 of /proc/<pid>/stat; 0 when there is no such process or it is a zombie. The name in field 2 may hold
// spaces and parentheses, so counting starts after the last ')'.
int64_t process_start(int64_t pid) {
  const std::string line = first_line(fmt::format("/proc/{}/stat", pid));
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(line.substr(name_end + 1));
  std::string field;
  for (int number = 3; fields >> field; ++number) {
    if (number == 3 && (field == "Z" || field == "X")) return 0;
    if (number == 22) return std::stoll(field);
  }
  return 0;
}

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

}  // namespace

const ProcessIdentity& this_process() {
  static const ProcessIdentity identity{getpid(), process_start(getpid()),
                                        first_line("/proc/sys/kernel/random/boot_id"), host_name()};
  return identity;
}

bool same_boot(const ProcessIdentity& owner) {
  return owner.boot_id == this_process().boot_id && owner.host == this_process().host;
}

bool process_is_alive(const ProcessIdentity& owner) { return owner.pid > 0 && process_start(owner.pid) == owner.start; }

TrueState derive_state(RunState stored, const ProcessIdentity& owner, double heartbeat_at, double now) {
  if (stored != RunState::running && stored != RunState::queued) return {stored, ""};
  // On this host another boot id means a restart since: the process is gone whatever the pid says.
  const bool alive = owner.host == this_process().host ? same_boot(owner) && process_is_alive(owner)
                                                       : now - heartbeat_at <= foreign_heartbeat_limit_s;
  if (alive) return {stored, ""};
  if (stored == RunState::queued) return {RunState::stopped, "The program ended before it started."};
  return {RunState::crashed,
          fmt::format("The program (process {} on {}) ended without finishing the run.", owner.pid, owner.host)};
}

std::string cpu_model() {
  static const std::string model = [] {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);)
      if (line.starts_with("model name"))
        if (const std::size_t colon = line.find(": "); colon != std::string::npos)
          return fmt::format("{} ({} threads)", line.substr(colon + 2), sysconf(_SC_NPROCESSORS_ONLN));
    return std::string("unknown");
  }();
  return model;
}

std::string build_description() {
  const std::string sanitizers = build_info::sanitizers;
  return fmt::format("{} {}, {}{}, SQLite {}", build_info::version, build_info::build_type, build_info::compiler,
                     sanitizers.empty() ? "" : ", sanitizers " + sanitizers, sqlite3_libversion());
}

double unix_now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace rat
