// Work that is started again and again with the same arguments. A backend that can record has it started launch by launch
// the first time (memory is taken, products choose their algorithms), recorded the second time, and from then on
// replayed as a whole, which leaves out what each launch costs. A recording holds addresses: it is made again when `key`
// changes, when memory was taken or given back, or when another thread comes. Other backends start the work every time.
//
// Traps: what `work` does on the host happens only when it is started or recorded, so it must do nothing there that a
//        replay would miss; values that change from step to step must lie in the backend's memory. Nothing in it may wait
//        for the backend or copy from or to the host: recording then fails.
//        A recording belongs to one caller at a time, as the memory it works on does.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/backend.h"

namespace rat::kernels {

class RepeatedWork {
 public:
  // What the work depends on besides addresses; what is not named is 0.
  using Key = std::array<int64_t, 6>;

  RepeatedWork() = default;
  ~RepeatedWork() { forget(); }
  RepeatedWork(const RepeatedWork&) = delete;
  RepeatedWork& operator=(const RepeatedWork&) = delete;

  // `work` returns Status.
  template <class Work>
  [[nodiscard]] Status run(const Key& key, const Exec& exec, const Work& work) {
    if (exec.backend->begin_recording == nullptr) return work();
    if (is_recorded(key, exec)) return replay();
    if (ran_so(key, exec)) return record(work);
    forget();
    RAT_TRY(work());
    remember(key, exec);
    return ok();
  }
  bool recorded() const { return recording_ != nullptr; }

 private:
  struct Conditions {  // under which addresses and launches are the same
    Key key{};
    uint64_t memory_changes = 0, thread = 0;
    bool operator==(const Conditions&) const = default;
  };
  static Conditions now(const Key& key, const Exec& exec);
  bool ran_so(const Key& key, const Exec& exec) const;
  bool is_recorded(const Key& key, const Exec& exec) const { return recorded() && ran_so(key, exec); }
  void remember(const Key& key, const Exec& exec);
  void forget();
  Status replay() const;
  template <class Work>
  Status record(const Work& work) {
    RAT_TRY(backend_->begin_recording());
    const Status started = work();
    Result<void*> recording = backend_->end_recording();  // also after an error: the stream goes on
    if (!started || !recording) {
      if (recording) backend_->forget_recording(*recording);
      backend_ = nullptr;
      return started ? Status(recording.error()) : started;
    }
    recording_ = *recording;
    return replay();
  }

  const Backend* backend_ = nullptr;  // of the last run; null: there was none that may be repeated
  Conditions conditions_;
  void* recording_ = nullptr;
};

}  // namespace rat::kernels
