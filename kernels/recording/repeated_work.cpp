#include "kernels/recording/repeated_work.h"

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

RepeatedWork::Conditions RepeatedWork::now(const Key& key, const Exec& exec) {
  return {key, exec.backend->memory_changes(), this_thread()};
}

bool RepeatedWork::ran_so(const Key& key, const Exec& exec) const {
  return backend_ == exec.backend && conditions_ == now(key, exec);
}

void RepeatedWork::remember(const Key& key, const Exec& exec) {
  backend_ = exec.backend;
  conditions_ = now(key, exec);
}

void RepeatedWork::forget() {
  if (recording_ != nullptr) backend_->forget_recording(recording_);
  recording_ = nullptr;
  backend_ = nullptr;
}

Status RepeatedWork::replay() const {
  const Told told(*backend_, "replay");
  return backend_->replay(recording_);
}

}  // namespace rat::kernels
