#include "app/cli/machine.h"

#include <sched.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "app/cli/gpu_probe.h"
#include "app/cli/output.h"
#include "app/cli/sibling.h"
#include "build_info.h"
#include "experiments/store/store.h"
#include "core/devices.h"
#include "kernels/base/cpu_features.h"

namespace rat::cli {
namespace {

namespace fs = std::filesystem;

constexpr double gib = 1024.0 * 1024 * 1024;

// The value after "key" and a colon in a /proc file; empty when it is not there.
std::string proc_value(const char* file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(':');
    if (!line.starts_with(key) || colon == std::string::npos) continue;
    const std::size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

Finding program_finding() {
  return {"program", true,
          fmt::format("rat {}, commit {}{}, {}, {}", build_info::version, build_info::commit,
                      build_info::dirty ? " with local changes" : "", build_info::build_type, build_info::compiler),
          ""};
}

Finding cpu_finding() {
  std::string model = proc_value("/proc/cpuinfo", "model name");
  if (model.empty()) model = "unknown model";
  cpu_set_t usable;
  CPU_ZERO(&usable);
  const unsigned installed = std::thread::hardware_concurrency();
  const int cores =
      sched_getaffinity(0, sizeof usable, &usable) == 0 ? CPU_COUNT(&usable) : static_cast<int>(installed);
  return {"CPU", true, fmt::format("{}, {} usable {}", model, cores, cores == 1 ? "core" : "cores"), ""};
}

Finding simd_finding(const kernels::CpuFeatures& features) {
  Finding finding{
      "SIMD", true,
      fmt::format("kernels use {} (this CPU supports {})", features.simd_target, fmt::join(features.simd_usable, ", ")),
      ""};
  finding.ok = features.simd_target.starts_with("AVX") || features.simd_target.starts_with("NEON") ||
               features.simd_target.starts_with("SVE");
  if (!finding.ok)
    finding.advice = "Everything works, several times slower than with AVX2: use a CPU from 2013 or later.";
  return finding;
}

Finding onednn_finding(const kernels::CpuFeatures& features) {
  return {
      "oneDNN", true,
      fmt::format("{} for matrix products, up to {}; computed in f32", features.onednn_version, features.onednn_isa),
      ""};
}

Finding memory_finding() {
  const double total = std::atof(proc_value("/proc/meminfo", "MemTotal").c_str()) * 1024;
  const double available = std::atof(proc_value("/proc/meminfo", "MemAvailable").c_str()) * 1024;
  Finding finding{"memory", available >= 2 * gib,
                  fmt::format("{} available of {}", format_bytes(available), format_bytes(total)), ""};
  if (!finding.ok)
    finding.advice = "Training may run out of memory: close programs or use a smaller model, batch or sequence length.";
  return finding;
}

Finding gpu_finding() {
  const GpuProbe gpu = probe_gpu();
  if (!gpu.driver_loaded) return {"GPU", false, "no NVIDIA driver", "Training runs on the CPU only."};
  if (gpu.devices.empty())
    return {
        "GPU", false,
        fmt::format("NVIDIA driver {}, but {}", gpu.driver_version, gpu.problem.empty() ? "no device" : gpu.problem),
        "Training runs on the CPU only; nvidia-smi tells more."};
  Finding finding{
      "GPU", true,
      fmt::format("{}; NVIDIA driver {}, CUDA {}", fmt::join(gpu.devices, ", "), gpu.driver_version, gpu.cuda_version),
      ""};
  for (const Device& device : devices())
    if (device.name == "cuda") {
      finding.ok = device.problem.empty();
      finding.advice = finding.ok ? "--device cuda trains, evaluates and generates on the first of them." : device.problem;
      return finding;
    }
  finding.ok = false;
  finding.advice = "This build has no cuda device: configure again where nvcc is found (RAT_CUDA=ON says what is missing).";
  return finding;
}

Finding toolkit_finding() {
  if (build_info::cuda_toolkit_found)
    return {"CUDA toolkit", true, "found when this was built: --device cuda is part of it", ""};
  return {"CUDA toolkit", false, "nvcc was not found when this was built",
          "Everything runs on the CPU; with a GPU, install the toolkit and build again."};
}

Finding window_finding() {
  if (const auto program = find_window_program()) return {"window program", true, program->string(), ""};
  return {"window program", false, "rat-workbench is neither beside rat nor in PATH",
          "`rat figure` writes CSV, pgfplots and recipes but no PDF, SVG or PNG: build with Qt 6, QCustomPlot and Dear "
          "ImGui."};
}

// SQLite keeps user_version in bytes 60..63 of the header, big-endian.
std::optional<uint32_t> schema_version(const fs::path& path) {
  std::array<unsigned char, 100> header{};
  std::ifstream in(path, std::ios::binary);
  if (!in.read(reinterpret_cast<char*>(header.data()), header.size())) return std::nullopt;
  return uint32_t{header[60]} << 24 | uint32_t{header[61]} << 16 | uint32_t{header[62]} << 8 | header[63];
}

Finding database_finding(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error))
    return {"database", true, fmt::format("{} does not exist yet: rat train makes it", path.string()), ""};
  const Result<StoreReader> store = StoreReader::open(path);
  if (!store) return {"database", false, store.error().message, "Choose another file with --db FILE."};
  const Result<std::vector<RunRow>> runs = store->runs();
  if (!runs) return {"database", false, runs.error().message, "`rat runs check` looks closer."};
  std::string text = fmt::format("{}, {} runs, {}", path.string(), runs->size(),
                                 format_bytes(static_cast<double>(fs::file_size(path, error))));
  if (const auto version = schema_version(path); version && *version > 0) text += fmt::format(", schema {}", *version);
  return {"database", true, text, ""};
}

Finding disk_finding(const fs::path& database) {
  fs::path folder = fs::absolute(database).parent_path();
  std::error_code error;
  while (!fs::exists(folder, error) && folder.has_relative_path()) folder = folder.parent_path();
  struct statvfs space {};
  if (statvfs(folder.c_str(), &space) != 0)
    return {"disk", false, fmt::format("{} cannot be examined", folder.string()), "Check its permissions."};
  const double free = static_cast<double>(space.f_bavail) * static_cast<double>(space.f_frsize);
  Finding finding{"disk", free >= gib,
                  fmt::format("{} free for runs and checkpoints in {}", format_bytes(free), folder.string()), ""};
  if (!finding.ok) finding.advice = "Checkpoints may not fit: free some space or put the database elsewhere with --db.";
  return finding;
}

Finding font_finding() {
  std::vector<fs::path> folders{"/usr/share/fonts", "/usr/local/share/fonts"};
  if (const char* home = std::getenv("HOME")) folders.push_back(fs::path(home) / ".local/share/fonts");
  for (const fs::path& folder : folders) {
    std::error_code error;
    for (fs::recursive_directory_iterator file(folder, fs::directory_options::skip_permission_denied, error), end;
         !error && file != end; file.increment(error))
      if (file->path().filename() == "LiberationSerif-Regular.ttf")
        return {"figure fonts", true, "Liberation Serif (the metrics of Times, embedded as TrueType)", ""};
  }
  return {"figure fonts", false, "Liberation Serif is not installed",
          "Figures fall back to another face than papers in Times: apt-get install fonts-liberation2."};
}

}  // namespace

std::vector<Finding> examine_machine(const Context& context) {
  const kernels::CpuFeatures features = kernels::cpu_features();
  return {program_finding(),
          cpu_finding(),
          simd_finding(features),
          onednn_finding(features),
          memory_finding(),
          gpu_finding(),
          toolkit_finding(),
          window_finding(),
          database_finding(context.database_path()),
          disk_finding(context.database_path()),
          font_finding()};
}

}  // namespace rat::cli
