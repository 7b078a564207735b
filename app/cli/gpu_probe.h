// NVIDIA devices, asked of the driver at run time: nothing of CUDA is linked.
#pragma once

#include <string>
#include <vector>

namespace rat::cli {

struct GpuProbe {
  bool driver_loaded = false;
  std::string driver_version;        // of the kernel module: "580.65.06"; "unknown" when only the library is there
  std::string cuda_version;          // the newest CUDA the driver can run: "13.0"
  std::vector<std::string> devices;  // "NVIDIA H200, 139.8 GiB"
  std::string problem;               // why there are none
};

GpuProbe probe_gpu();

}  // namespace rat::cli
