#include "kernels/base/status.h"

#include <cstdio>
#include <cstdlib>

namespace rat {

void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  std::fprintf(stderr, "%s:%d: internal check failed (%s): %s\n", file, line, condition, message.c_str());
  std::abort();
}

}  // namespace rat
