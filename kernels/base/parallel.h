// One small persistent thread pool for all kernels of the process.
//
// Work is cut into blocks by shape alone, never by the number of threads, and each block is computed by one thread in a
// fixed order: results do not depend on the thread count. Any number of threads may call at once: who finds the pool
// busy runs its own blocks itself.
#pragma once

#include <cstdint>
#include <type_traits>

namespace rat::kernels {

// Default: env RAT_THREADS, else the hardware's. Set it before, not during, a computation.
int thread_count();
void set_thread_count(int count);

namespace detail {
using BlockFunction = void (*)(const void* context, int64_t block);
void run_blocks(int64_t blocks, BlockFunction function, const void* context);
}  // namespace detail

// Calls body(block) once for every block in [0, blocks), in any order, on any thread; returns when all are done.
// `body` must not throw.
template <class Body>
void parallel_for(int64_t blocks, const Body& body) {
  detail::run_blocks(
      blocks, [](const void* context, int64_t block) { (*static_cast<const Body*>(context))(block); }, &body);
}

// parallel_for over [0, count) in ranges of at most `block_size`: body(begin, end).
template <class Body>
void parallel_ranges(int64_t count, int64_t block_size, const Body& body) {
  const int64_t blocks = (count + block_size - 1) / block_size;
  parallel_for(blocks, [&](int64_t block) {
    const int64_t begin = block * block_size;
    body(begin, begin + block_size < count ? begin + block_size : count);
  });
}

// Rows per block so that a block holds about `elements` elements; depends on the shape alone.
inline int64_t rows_per_block(int64_t cols, int64_t elements = int64_t{1} << 15) {
  const int64_t rows = elements / (cols > 0 ? cols : 1);
  return rows > 0 ? rows : 1;
}

}  // namespace rat::kernels
