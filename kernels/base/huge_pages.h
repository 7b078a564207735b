// Large blocks on large pages: a matrix product walks many rows at once, each on pages of its own.
#pragma once

#include <cstddef>

namespace rat::kernels {

// Asks the system to back [data, data + bytes) with huge pages where it has them; a hint, and only for blocks of at
// least 4 MiB. Call it before the memory is first written.
void advise_huge_pages(void* data, std::size_t bytes);

}  // namespace rat::kernels
