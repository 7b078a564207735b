// Speed of one layer, a whole model, or decoding, on random data: warm-up, then repetitions, median and quartiles.
//
// What is timed, and called so in every row:
//   train    forward and backward (layer); zero gradients, forward, backward and AdamW (model)
//   prefill  filling an empty decode state, whose memory is there, with T tokens of each of B sequences at once
//   decode   one token for each of B sequences at once, after T tokens (layer or model); up to T + max(T / 16, 16) as
//            repetitions go by, then from T again. Each sequence has a cache of its own, filled with the same T tokens.
//            Of a layer on a device, 16 tokens one after another between two looks at the clock: in a model, nothing
//            waits between layers.
// Of a layer, with its residual; inputs lie on the device before the time begins, and outputs stay there. A model's
// token ids come from the host, and its logits after the last tokens go there, as for who samples.
// peak_bytes: the highest resident memory of the process while the row was set up and run, less what was resident
// before (Linux VmHWM, reset for every row); absent where the system does not let us reset it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/config.h"
#include "core/op_times.h"
#include "core/stop.h"
#include "kernels/base/cache_dtype.h"
#include "kernels/base/status.h"

namespace rat {

struct BenchConfig {
  ModelConfig model;         // layer and decode: the first layer only, unless `whole_model`
  int64_t seq_len = 4096;    // T
  int64_t batch = 1;         // B
  int64_t warmup = 3;        // repetitions that are not counted
  int64_t repetitions = 20;  // at least this many, and at least min_seconds
  double min_seconds = 0.5;
  bool whole_model = false;  // decode: the model instead of its first layer
  std::string phase;         // only this row: train, prefill or decode; empty: all that are usual
  std::string device = "cpu";
  std::string dtype = "f32";
  std::optional<kernels::CacheDtype> cache;  // prefill and decode: of keys and values; nothing: as the layers compute
  const StopFlag* stop = nullptr;
  std::function<void(std::string_view what, int64_t done, int64_t planned)> progress;
};

struct BenchRow {
  std::string what;  // train, prefill, decode
  bool whole_model = false;
  std::string layers;  // the layer pattern with all settings: "ratplus:64/w64", "rat:16*4"
  std::string kind;    // the mixer of a layer; the layer pattern of a model
  int64_t chunk = 0;   // of the first layer; 0 where it has none
  int64_t window = 0;  // likewise
  int64_t seq_len = 0, batch = 0, d_model = 0, heads = 0, groups = 0, kv_heads = 0;
  std::string dtype, device;
  std::string cache;  // prefill and decode: in which precision keys and values were kept: "bf16", "bf16, f32"
  int64_t repetitions = 0;
  double median_ms = 0, q1_ms = 0, q3_ms = 0;
  double tokens_per_s = 0;  // from the median
  std::optional<int64_t> peak_bytes;
  OpTimes op_ms;  // mean per repetition; on a device, of five more, started op by op
};

Result<std::vector<BenchRow>> bench_layer(const BenchConfig& config);   // train, prefill; decode only by its name
Result<std::vector<BenchRow>> bench_model(const BenchConfig& config);   // train, prefill, decode
Result<std::vector<BenchRow>> bench_decode(const BenchConfig& config);  // decode

// The rows as `rat bench --json` prints them.
std::string to_json(const std::vector<BenchRow>& rows);
// Reads them back, all but the times per operation. Errors begin with `source`, which says whose text this is.
Result<std::vector<BenchRow>> parse_bench_rows(std::string_view json, std::string_view source);

// Quantile p of `values` by linear interpolation between order statistics (type 7, the default of NumPy and R).
double quantile(std::vector<double> values, double p);

}  // namespace rat
