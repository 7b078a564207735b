#include "core/devices.h"

#include "kernels/backend.h"

namespace rat {

std::vector<Device> devices() {
  std::vector<Device> all;
  for (const kernels::Backend* backend : kernels::backends()) {
    Device device{std::string(backend->name), backend->matmul_path(kernels::Dtype::f32), "", {}};
    if (const Status usable = backend->supports(kernels::Dtype::f32); !usable) device.problem = usable.error().message;
    for (const kernels::Dtype dtype : kernels::dtypes())
      if (device.problem.empty() && backend->supports(dtype)) device.dtypes.emplace_back(kernels::dtype_name(dtype));
    all.push_back(std::move(device));
  }
  return all;
}

}  // namespace rat
