// Work that is started again and again with the same arguments. A backend that can record has it started launch by launch
// the first time (memory is taken, products choose their algorithms), recorded the second time, and from then on
// replayed as a whole, which leaves out what each launch costs. A recording holds addresses: it is made again when memory was
// taken or given back, or when another thread comes. Of each `key` there may be one, so that work that takes turns (training
// on several dilations) is replayed as well. Other backends start the work every time.
//
// Traps: what `work` does on the host happens only when it is started or recorded, so it must do nothing there that a
//        replay would miss; values that change from step to step must lie in the backend's memory. Nothing in it may wait
//        for the backend or copy from or to the host: recording then fails.
//        A recording belongs to one caller at a time, as the memory it works on does.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/backend.h"

namespace rat::kernels {

class RepeatedWork {
 public:
  // What the work depends on besides addresses; what is not named is 0.
  using Key = std::array<int64_t, 6>;

  RepeatedWork() = default;
  ~RepeatedWork() { forget_all(); }
  RepeatedWork(const RepeatedWork&) = delete;
  RepeatedWork& operator=(const RepeatedWork&) = delete;

  // `work` returns Status.
  template <class Work>
  [[nodiscard]] Status run(const Key& key, const Exec& exec, const Work& work) {
    if (exec.backend->begin_recording == nullptr) return work();
    forget_stale(exec);
    if (const auto known = find(key); known != runs_.end())
      return known->recording != nullptr ? replay(*known) : record(known, work);
    RAT_TRY(work());
    remember(key, exec);
    return ok();
  }
  // Of any key.
  bool recorded() const;

 private:
  static constexpr std::size_t most_keys = 8;
  struct Run {
    Key key;
    void* recording = nullptr;  // null: started once so far
  };
  using Known = std::vector<Run>::iterator;
  struct Conditions {  // under which addresses are the same
    const Backend* backend = nullptr;
    uint64_t memory_changes = 0, thread = 0;
    bool operator==(const Conditions&) const = default;
  };
  static Conditions now(const Exec& exec);
  Known find(const Key& key);
  void remember(const Key& key, const Exec& exec);
  void forget_stale(const Exec& exec);
  void forget(Known run);
  void forget_all();
  Status replay(const Run& run) const;
  template <class Work>
  Status record(Known run, const Work& work) {
    const Backend& backend = *conditions_.backend;
    RAT_TRY(backend.begin_recording());
    const Status started = work();
    Result<void*> recording = backend.end_recording();  // also after an error: the stream goes on
    if (recording) run->recording = *recording;
    if (started && recording) return replay(*run);
    forget(run);
    return started ? Status(recording.error()) : started;
  }

  Conditions conditions_;   // of all runs
  std::vector<Run> runs_;  // the newest key last
};

}  // namespace rat::kernels
