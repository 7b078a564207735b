#include "tests/views/plots_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

namespace rat::test {

Folder::Folder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "rat-plots-XXXXXX").string();
  path_ = mkdtemp(pattern.data());
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> write_runs(const std::filesystem::path& path, const std::vector<StoredRun>& runs) {
  auto store = StoreWriter::open(path);
  EXPECT_TRUE(store) << store.error().message;
  std::vector<std::string> ids;
  for (const StoredRun& run : runs) {
    RunSpec spec;
    spec.name = run.name;
    spec.model.layers = *parse_layers(run.layers);
    spec.train.seed = run.seed;
    spec.train.seq_len = 512;
    NewRun row;
    row.name = run.name;
    row.spec_json = to_json(spec);
    row.spec_hash = spec_hash(spec);
    row.layers = run.layers;
    row.device = "cpu";
    row.dtype = "f32";
    row.seed = run.seed;
    const auto id = (*store)->create_run(row);
    EXPECT_TRUE(id) << id.error().message;
    EXPECT_TRUE((*store)->start_run(*id));
    for (const auto& [metric, values] : run.metrics)
      for (const MetricPoint& point : values) (*store)->log(*id, metric, point.step, point.value, point.wall_s);
    (*store)->set_progress(*id, 20);
    EXPECT_TRUE((*store)->flush());
    EXPECT_TRUE((*store)->end_run(*id, RunState::finished));
    ids.push_back(*id);
  }
  return ids;
}

std::vector<MetricPoint> points(int64_t n, const std::function<double(int64_t)>& f) {
  std::vector<MetricPoint> all;
  for (int64_t step = 1; step <= n; ++step) all.push_back({step, f(step), 0.05 * static_cast<double>(step)});
  return all;
}

StoredRun training_like(const std::string& layers, uint64_t seed, int64_t steps, double final_loss, double decode,
                        double cache) {
  StoredRun run;
  run.layers = layers;
  run.seed = seed;
  run.name = layers + " seed " + std::to_string(seed);
  // A small linear congruential generator: the same noise on every machine.
  auto state = std::make_shared<uint64_t>(seed * 7919 + std::hash<std::string>{}(layers));
  const auto noise = [state] {
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<double>(*state >> 11) / 9007199254740992.0 - 0.5;
  };
  const double n = static_cast<double>(steps);
  run.metrics.emplace_back("loss", points(steps, [=](int64_t s) {
                             return final_loss + 4.1 * std::exp(-8.0 * static_cast<double>(s) / n) + 0.25 * noise();
                           }));
  run.metrics.emplace_back("tokens_per_s", points(steps, [=](int64_t) { return decode * 12 * (1 + 0.06 * noise()); }));
  run.metrics.emplace_back("grad_norm", points(steps, [=](int64_t s) {
                             return (0.3 + 2 * std::exp(-4.0 * static_cast<double>(s) / n)) * (1 + 0.5 * noise());
                           }));
  run.metrics.emplace_back("lr", points(steps, [=](int64_t s) {
                             return 8e-4 * std::min(1.0, static_cast<double>(s) / (0.05 * n)) * 0.5 *
                                    (1 + std::cos(3.14159 * static_cast<double>(s) / n));
                           }));
  std::vector<MetricPoint> val;
  for (int64_t s = steps / 10; s <= steps; s += steps / 10)
    val.push_back({s, final_loss + 4.0 * std::exp(-8.0 * static_cast<double>(s) / n) + 0.012 * noise(),
                   0.05 * static_cast<double>(s)});
  run.metrics.emplace_back("val_loss", val);
  run.metrics.emplace_back("decode_tokens_per_s", std::vector<MetricPoint>{{steps, decode * (1 + 0.03 * noise()), 1}});
  run.metrics.emplace_back("cache_bytes", std::vector<MetricPoint>{{steps, cache, 1}});
  int k = 0;
  for (const char* op : {"embedding", "norm", "gemm", "scan", "attention", "gelu", "cross entropy", "optimizer"}) {
    const double ms = std::vector<double>{0.4, 1.1, 14.2, 2.2, 3.1, 1.9, 1.2, 2.6}[static_cast<std::size_t>(k++)];
    run.metrics.emplace_back(std::string("op_ms/") + op,
                             points(std::min<int64_t>(steps, 100), [=](int64_t) { return ms * (1 + 0.2 * noise()); }));
  }
  return run;
}

TraceSnapshot small_trace(int64_t tokens, int64_t channels) {
  TraceSnapshot trace;
  trace.serial = 7;
  trace.run_id = "abc123";
  trace.step = 1240;
  trace.source = "validation text";
  trace.kernel_path = "probe pass, f32 CPU kernels";
  trace.cost_ms = 1.25;
  trace.model.d_model = channels;
  trace.model.heads = 1;
  trace.model.groups = 1;
  trace.model.layers = {LayerConfig{"rat", 4, 128}};
  for (int64_t t = 0; t < tokens; ++t) trace.tokens.push_back(static_cast<int32_t>(97 + t % 26));
  ProbeTensor gate{Probe::gate, 0, {tokens, channels}, {}}, state{Probe::state_v, 0, {tokens, channels}, {}};
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t d = 0; d < channels; ++d) {
      gate.values.push_back(0.1f + 0.8f * static_cast<float>((d * 7) % channels) / static_cast<float>(channels));
      state.values.push_back(std::sin(0.37f * static_cast<float>(t) + static_cast<float>(d)) *
                             (1 + 0.2f * static_cast<float>(d % 5)));
    }
  const int64_t chunks = (tokens + 3) / 4;
  ProbeTensor attention{Probe::attention, 0, {1, tokens, chunks + 1}, {}};
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t past = t / 4;
    double sum = 1;
    for (int64_t c = 0; c < past; ++c)
      sum += std::exp(-0.3 * static_cast<double>(past - c) + std::sin(static_cast<double>(3 * c)));
    for (int64_t c = 0; c < chunks; ++c)
      attention.values.push_back(
          c < past ? static_cast<float>(
                         std::exp(-0.3 * static_cast<double>(past - c) + std::sin(static_cast<double>(3 * c))) / sum)
                   : std::nanf(""));
    attention.values.push_back(static_cast<float>(1 / sum));
  }
  trace.tensors = {std::move(gate), std::move(state), std::move(attention)};
  return trace;
}

std::vector<BenchRow> bench_rows() {
  std::vector<BenchRow> rows;
  for (const std::string kind : {"rat", "attention"})
    for (const int64_t scale : {1, 2, 4})
      for (const std::string what : {"train", "prefill"}) {
        BenchRow row;
        row.what = what;
        row.kind = kind;
        row.layers = kind == "rat" ? "rat:16" : kind;
        row.seq_len = 512 * scale;
        row.batch = 1, row.d_model = 256, row.heads = 4;
        row.dtype = "f32", row.device = "cpu";
        row.repetitions = 20;
        row.median_ms = static_cast<double>(kind == "rat" ? 2 * scale : 2 * scale * scale);
        row.q1_ms = 0.75 * row.median_ms, row.q3_ms = 1.25 * row.median_ms;
        row.tokens_per_s = 1000 * static_cast<double>(row.seq_len) / row.median_ms;
        row.peak_bytes = scale << 20;
        rows.push_back(row);
      }
  return rows;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace rat::test
