#include "kernels/recording/repeated_work.h"

#include <algorithm>
#include <atomic>

namespace rat::kernels {
namespace {

// Unlike the system's, never used again for another thread.
uint64_t this_thread() {
  static std::atomic<uint64_t> threads{0};
  static thread_local const uint64_t number = ++threads;
  return number;
}

}  // namespace

RepeatedWork::Conditions RepeatedWork::now(const Exec& exec) {
  return {exec.backend, exec.backend->memory_changes(), this_thread()};
}

bool RepeatedWork::recorded() const {
  return std::ranges::any_of(runs_, [](const Run& run) { return run.recording != nullptr; });
}

RepeatedWork::Known RepeatedWork::find(const Key& key) { return std::ranges::find(runs_, key, &Run::key); }

// The work may have taken memory itself: then nothing from before it counts.
void RepeatedWork::remember(const Key& key, const Exec& exec) {
  forget_stale(exec);
  if (runs_.size() == most_keys) forget(runs_.begin());
  conditions_ = now(exec);
  runs_.push_back({key});
}

void RepeatedWork::forget_stale(const Exec& exec) {
  if (conditions_ != now(exec)) forget_all();
}

void RepeatedWork::forget(Known run) {
  if (run->recording != nullptr) conditions_.backend->forget_recording(run->recording);
  runs_.erase(run);
}

void RepeatedWork::forget_all() {
  while (!runs_.empty()) forget(runs_.end() - 1);
}

Status RepeatedWork::replay(const Run& run) const {
  const Told told(*conditions_.backend, "replay");
  return conditions_.backend->replay(run.recording);
}

}  // namespace rat::kernels
