#include "kernels/base/parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rat::kernels {
namespace {

// Waits for `done` for some twenty microseconds without giving up the core: the next piece of work usually comes sooner
// than a sleeping thread would wake.
template <class Done>
bool spin_until(const Done& done) {
  for (int i = 0; i < 500; ++i) {
    if (done()) return true;
#if defined(__x86_64__)
    _mm_pause();
#endif
  }
  return done();
}

int default_thread_count() {
  if (const char* text = std::getenv("RAT_THREADS")) {
    const int count = std::atoi(text);
    if (count >= 1) return std::min(count, 1024);
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// One parallel_for. Lives on the caller's stack: the caller leaves only when no worker is inside any more.
struct Job {
  detail::BlockFunction function;
  const void* context;
  int64_t blocks;
  std::atomic<int64_t> next{0};

  void work() {
    for (int64_t block; (block = next.fetch_add(1, std::memory_order_relaxed)) < blocks;) function(context, block);
  }
};

class Pool {
 public:
  ~Pool() { stop_workers(); }

  int count() {
    const std::lock_guard lock(mutex_);
    return count_;
  }

  void resize(int count) {
    const std::lock_guard busy(busy_);
    {
      const std::lock_guard lock(mutex_);
      if (count == count_) return;
    }
    stop_workers();
    const std::lock_guard lock(mutex_);
    count_ = std::max(1, count);
  }

  // False when another caller has the pool.
  bool try_run(Job& job) {
    const std::unique_lock busy(busy_, std::try_to_lock);
    if (!busy.owns_lock()) return false;
    {
      const std::lock_guard lock(mutex_);
      start_workers();
      job_ = &job;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    job.work();
    {
      const std::lock_guard lock(mutex_);
      job_ = nullptr;  // a worker that wakes only now finds nothing
    }
    if (spin_until([&] { return inside_.load(std::memory_order_acquire) == 0; })) return true;
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [&] { return inside_.load(std::memory_order_relaxed) == 0; });
    return true;
  }

 private:
  void start_workers() {
    while (static_cast<int>(workers_.size()) < count_ - 1) workers_.emplace_back([this] { work_loop(); });
  }

  void stop_workers() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    const std::lock_guard lock(mutex_);
    stopping_ = false;
  }

  void work_loop();

  std::mutex busy_;   // held by the caller whose job runs
  std::mutex mutex_;  // guards everything below
  std::condition_variable wake_, idle_;
  std::vector<std::thread> workers_;
  Job* job_ = nullptr;
  std::atomic<uint64_t> generation_{0};  // written under mutex_
  std::atomic<int> inside_{0};           // workers that hold job_
  int count_ = default_thread_count();
  bool stopping_ = false;
};

thread_local bool inside_block = false;  // a block that calls parallel_for runs it alone

void Pool::work_loop() {
  inside_block = true;
  uint64_t seen = 0;
  while (true) {
    spin_until([&] { return generation_.load(std::memory_order_acquire) != seen; });
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
    if (stopping_) return;
    seen = generation_;
    Job* job = job_;
    if (job == nullptr) continue;  // came too late; the next one may be near
    ++inside_;
    lock.unlock();
    job->work();
    lock.lock();
    if (--inside_ == 0) idle_.notify_one();
  }
}

Pool& pool() {
  static Pool instance;
  return instance;
}

}  // namespace

int thread_count() { return pool().count(); }
void set_thread_count(int count) { pool().resize(count); }

void detail::run_blocks(int64_t blocks, BlockFunction function, const void* context) {
  if (blocks <= 0) return;
  if (blocks > 1 && !inside_block && thread_count() > 1) {
    Job job{function, context, blocks};
    inside_block = true;
    const bool ran = pool().try_run(job);
    inside_block = false;
    if (ran) return;
  }
  for (int64_t block = 0; block < blocks; ++block) function(context, block);
}

}  // namespace rat::kernels
