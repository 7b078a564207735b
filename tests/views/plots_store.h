// A small run database with known numbers, for the tests of plots and figures.
#pragma once

#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/trace/snapshot.h"
#include "experiments/bench/bench.h"
#include "experiments/run_spec.h"
#include "experiments/store/store.h"

namespace rat::test {

// A folder that is gone when the test ends.
class Folder {
 public:
  Folder();
  ~Folder();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

struct StoredRun {
  std::string layers = "rat:16*2";
  uint64_t seed = 1;
  std::string name;
  // metric -> points
  std::vector<std::pair<std::string, std::vector<MetricPoint>>> metrics;
};

// Writes the runs to `path`; returns their ids in order.
std::vector<std::string> write_runs(const std::filesystem::path& path, const std::vector<StoredRun>& runs);

// steps 1..n of f(step).
std::vector<MetricPoint> points(int64_t n, const std::function<double(int64_t)>& f);

// Loss-like, deterministic noise; decode speed, cache and validation loss that trade off against each other.
StoredRun training_like(const std::string& layers, uint64_t seed, int64_t steps, double final_loss, double decode,
                        double cache);

// One layer of `layers` with gate, state_v and attention of tokens x heads, chunk 4 when rat.
TraceSnapshot small_trace(int64_t tokens = 19, int64_t channels = 6);

// Training and prefill of rat:16 (linear in T) and attention (quadratic) at T = 512, 1024, 2048: rows as `rat bench`
// measures them, T after T, train before prefill. Quartiles are a quarter around the median.
std::vector<BenchRow> bench_rows();

std::string read_file(const std::filesystem::path& path);

}  // namespace rat::test
