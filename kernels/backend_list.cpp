#include "kernels/backend.h"

namespace rat::kernels {

std::span<const Backend* const> backends() {
  static const Backend* const list[] = {
      &cpu_backend(),
#ifdef RAT_BUILD_CUDA
      &cuda_backend(),
#endif
  };
  return list;
}

Result<const Backend*> find_backend(std::string_view name) {
  std::string known;
  for (const Backend* backend : backends()) {
    if (backend->name == name) return backend;
    known += (known.empty() ? "" : ", ") + std::string(backend->name);
  }
  return fail(ErrorCode::unsupported, "device '{}' is not part of this build, which has: {}", name, known);
}

}  // namespace rat::kernels
