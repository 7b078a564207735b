#include "app/cli/gpu_probe.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <fstream>
#include <sstream>
#include <type_traits>

#include "app/cli/output.h"

namespace rat::cli {
namespace {

// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  ..." -> the first word that looks like a version.
std::string kernel_module_version() {
  std::ifstream in("/proc/driver/nvidia/version");
  std::string line;
  std::getline(in, line);
  std::istringstream words(line);
  for (std::string word; words >> word;)
    if (word.find_first_not_of("0123456789.") == std::string::npos && word.find('.') != std::string::npos) return word;
  return "";
}

// The part of the driver API that names devices; signatures from NVIDIA's cuda.h.
struct Driver {
  int (*init)(unsigned) = nullptr;
  int (*driver_version)(int*) = nullptr;
  int (*device_count)(int*) = nullptr;
  int (*device_get)(int*, int) = nullptr;
  int (*device_name)(char*, int, int) = nullptr;
  int (*device_memory)(std::size_t*, int) = nullptr;

  bool load(void* library) {
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      return function != nullptr;
    };
    return find(init, "cuInit") && find(driver_version, "cuDriverGetVersion") &&
           find(device_count, "cuDeviceGetCount") && find(device_get, "cuDeviceGet") &&
           find(device_name, "cuDeviceGetName") && find(device_memory, "cuDeviceTotalMem_v2");
  }
};

void ask_driver(const Driver& driver, GpuProbe& probe) {
  int version = 0, count = 0;
  if (const int error = driver.init(0); error != 0) {
    probe.problem = fmt::format("it does not start (CUDA error {})", error);
    return;
  }
  if (driver.driver_version(&version) == 0)
    probe.cuda_version = fmt::format("{}.{}", version / 1000, version % 1000 / 10);
  if (driver.device_count(&count) != 0) count = 0;
  for (int i = 0; i < count; ++i) {
    int device = 0;
    std::array<char, 128> name{};
    std::size_t bytes = 0;
    if (driver.device_get(&device, i) != 0 || driver.device_name(name.data(), name.size(), device) != 0 ||
        driver.device_memory(&bytes, device) != 0)
      continue;
    probe.devices.push_back(fmt::format("{}, {}", name.data(), format_bytes(static_cast<double>(bytes))));
  }
}

}  // namespace

GpuProbe probe_gpu() {
  GpuProbe probe;
  probe.driver_version = kernel_module_version();
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);  // stays loaded: the driver starts threads of its own
  probe.driver_loaded = library != nullptr || !probe.driver_version.empty();
  if (probe.driver_version.empty()) probe.driver_version = "unknown";
  if (!library) {
    probe.problem = "libcuda.so.1 is not installed";
    return probe;
  }
  Driver driver;
  if (driver.load(library))
    ask_driver(driver, probe);
  else
    probe.problem = "libcuda.so.1 is incomplete";
  return probe;
}

}  // namespace rat::cli
