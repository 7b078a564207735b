// Times whole RAT layers and their stages with CUDA events: random data, warm-up, median and quartiles.
// Usage: cuda_bench [--what ceilings|train|prefill|decode|gelu]... [--seq-len T]... [--batch B]... [--chunk L] [--tokens N]
//                   [--d-model D] [--heads H] [--groups G] [--path NAME] [--cache bf16|fp8] [--reps N] [--json FILE]
// train and prefill take N tokens as N/T sequences of T; decode takes B sequences that have T tokens in the cache; gelu is
// the feed-forward half's product and gradient with GELU, N rows of D channels and 4 D hidden ones, on both paths.
#include <algorithm>
#include <memory>

#include "kernels/cuda/gelu_product.h"
#include "kernels/cuda/rat_layer.h"
#include "tests/cuda/check.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

std::size_t allocated = 0;  // bytes of all live buffers: what "peak bytes" reports, with the matmul workspace

template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) : bytes_(static_cast<std::size_t>(count) * sizeof(T)) {
    require(cudaMalloc(reinterpret_cast<void**>(&data_), bytes_), "allocation");
    allocated += bytes_;
  }
  ~Buffer() {
    cudaFree(data_);
    allocated -= bytes_;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }
  std::size_t bytes() const { return bytes_; }

  // Normal numbers; a block of 4 million is drawn and repeated.
  Buffer& fill(double scale, double shift = 0.0) {
    static std::mt19937_64 random(42);
    std::normal_distribution<float> normal(static_cast<float>(shift), static_cast<float>(scale));
    const std::size_t count = bytes_ / sizeof(T), block = std::min<std::size_t>(count, 4000037);
    std::vector<T> host(block);
    for (T& value : host) value = T(normal(random));
    for (std::size_t at = 0; at < count; at += block)
      require(cudaMemcpy(data_ + at, host.data(), std::min(block, count - at) * sizeof(T), cudaMemcpyHostToDevice), "upload");
    return *this;
  }

 private:
  T* data_ = nullptr;
  std::size_t bytes_;
};

struct Options {
  std::vector<std::string> what;
  std::vector<int64_t> seq_lens, batches;
  int64_t chunk = 16, tokens = 262144, d_model = 2048, heads = 16, groups = 2;
  int reps = 20;
  std::string path, json, cache = "bf16";
};

struct Times {
  double median = 0.0, q1 = 0.0, q3 = 0.0;
};

Times summary(std::vector<float> ms) {
  std::sort(ms.begin(), ms.end());
  const auto at = [&](double part) { return static_cast<double>(ms[static_cast<std::size_t>(part * static_cast<double>(ms.size() - 1) + 0.5)]); };
  return {at(0.5), at(0.25), at(0.75)};
}

class Timer {
 public:
  Timer() {
    for (auto& event : events_) require(cudaEventCreate(&event), "event");
  }
  template <class Work>
  Times measure(int reps, const Work& work) {
    for (int i = 0; i < 3; ++i) work();
    require(cudaDeviceSynchronize(), "warm-up");
    std::vector<float> times;
    for (int i = 0; i < reps; ++i) {
      cudaEventRecord(events_[0], stream);
      work();
      cudaEventRecord(events_[1], stream);
      require(cudaEventSynchronize(events_[1]), "timed work");
      float ms = 0.0f;
      cudaEventElapsedTime(&ms, events_[0], events_[1]);
      times.push_back(ms);
    }
    return summary(times);
  }
  static constexpr cudaStream_t stream = nullptr;

 private:
  cudaEvent_t events_[2];
};

// Events between the stages of one call; medians per stage.
class StageTimes {
 public:
  void begin() {
    order_ = 0;
    record();
  }
  void mark(const char* stage) {
    if (names_.size() < static_cast<std::size_t>(order_)) names_.push_back(stage);
    record();
  }
  void collect() {
    require(cudaDeviceSynchronize(), "stages");
    times_.resize(names_.size());
    for (std::size_t i = 0; i < names_.size(); ++i) {
      float ms = 0.0f;
      cudaEventElapsedTime(&ms, events_[i], events_[i + 1]);
      times_[i].push_back(ms);
    }
  }
  template <class Print>
  void each(const Print& print) const {
    for (std::size_t i = 0; i < names_.size(); ++i) print(names_[i], summary(times_[i]));
  }

 private:
  void record() {
    if (events_.size() <= static_cast<std::size_t>(order_)) {
      events_.emplace_back();
      require(cudaEventCreate(&events_.back()), "event");
    }
    cudaEventRecord(events_[static_cast<std::size_t>(order_++)], nullptr);
  }
  int order_ = 0;
  std::vector<cudaEvent_t> events_;
  std::vector<std::string> names_;
  std::vector<std::vector<float>> times_;
};

class Report {
 public:
  explicit Report(const std::string& path) : file_(path.empty() ? nullptr : std::fopen(path.c_str(), "a")) {}
  ~Report() {
    if (file_ != nullptr) std::fclose(file_);
  }
  void row(const char* what, const Options& o, int64_t seq_len, int64_t batch, const char* path, const Times& t,
           int64_t tokens, std::size_t bytes) {
    std::printf("%-8s T=%-7lld B=%-4lld L=%-4lld %-6s %9.4f ms (%.4f .. %.4f)  %8.2f M tokens/s  %.2f GiB\n", what,
                static_cast<long long>(seq_len), static_cast<long long>(batch), static_cast<long long>(o.chunk), path, t.median,
                t.q1, t.q3, static_cast<double>(tokens) / t.median * 1e-3, static_cast<double>(bytes) / (1 << 30));
    std::fflush(stdout);
    if (file_ == nullptr) return;
    std::fprintf(file_,
                 "{\"what\":\"%s\",\"kind\":\"rat\",\"chunk\":%lld,\"seq_len\":%lld,\"batch\":%lld,\"d_model\":%lld,"
                 "\"heads\":%lld,\"dtype\":\"bf16\",\"cache\":\"%s\",\"device\":\"cuda\",\"path\":\"%s\","
                 "\"median_ms\":%.5f,\"q1_ms\":%.5f,\"q3_ms\":%.5f,\"tokens_per_s\":%.1f,\"peak_bytes\":%zu}\n",
                 what, static_cast<long long>(o.chunk), static_cast<long long>(seq_len), static_cast<long long>(batch),
                 static_cast<long long>(o.d_model), static_cast<long long>(o.heads), o.cache.c_str(), path, t.median,
                 t.q1, t.q3,
                 static_cast<double>(tokens) / t.median * 1e3, bytes);
  }

 private:
  std::FILE* file_;
};

AttentionPath chosen_path(const Options& o) {
  const int64_t head_size = o.d_model / o.heads;
  for (const AttentionPath path : {AttentionPath::simple, AttentionPath::mma, AttentionPath::wgmma})
    if (o.path == path_name(path)) return path;
  return best_path<bf16>(head_size);
}

// Useful operations of one stage, from the shape alone: what the equations ask for, not what tiles compute.
double stage_flops(const std::string& stage, const RatShape& s) {
  const double N = static_cast<double>(s.rows()), D = static_cast<double>(s.channels()), W = static_cast<double>(s.proj_width());
  double seen = 0.0;  // (query, key) pairs of one head
  for (int64_t t = 0; t < s.tokens; ++t) seen += static_cast<double>(t / s.chunk_len);
  const double attention = 4.0 * seen * D * static_cast<double>(s.batch);
  if (stage.rfind("in_proj", 0) == 0) return 2.0 * N * D * W;
  if (stage.rfind("out_proj", 0) == 0) return 2.0 * N * D * D;
  if (stage == "chunk_attention") return attention;
  if (stage == "chunk_attention_backward") return 2.5 * attention;
  return 0.0;
}

// The fewest bytes a stage must move: inputs once, outputs once.
double stage_bytes(const std::string& stage, const RatShape& s) {
  const double plane = 2.0 * static_cast<double>(s.rows() * s.channels());
  const double W = static_cast<double>(s.proj_width()) / static_cast<double>(s.channels());
  const double group = static_cast<double>(s.groups) / static_cast<double>(s.heads), ends = 2.0 / static_cast<double>(s.chunk_len);
  if (stage == "rms_norm") return 2.0 * plane;
  if (stage == "chunk_scan") return plane * (3.0 + 3.0 * group + ends);
  if (stage == "chunk_attention") return plane * (3.0 + group + ends);
  if (stage == "out_proj input gradient, gate") return 5.0 * plane;
  if (stage == "chunk_attention_backward") return plane * (1.0 + 3.0 * group + 3.0 * ends);
  if (stage == "chunk_scan_backward") return plane * (5.0 + 6.0 * group + 2.0 * ends);
  if (stage == "rms_norm_backward") return 4.0 * plane;
  if (stage.rfind("in_proj", 0) == 0) return plane * (1.0 + W);
  if (stage.rfind("out_proj", 0) == 0) return plane * (stage == "out_proj" ? 3.0 : 2.0);
  return 0.0;
}

void ceilings(Gemm& gemm) {
  Timer timer;
  {
    Buffer<bf16> from(int64_t{1} << 31), to(int64_t{1} << 31);
    from.fill(1.0);
    const Times t = timer.measure(20, [&] { cudaMemcpyAsync(to.get(), from.get(), from.bytes(), cudaMemcpyDeviceToDevice, Timer::stream); });
    std::printf("ceiling  copy of %.1f GB: %.3f ms, %.2f TB/s read and written\n", static_cast<double>(from.bytes()) * 1e-9, t.median,
                2e-9 * static_cast<double>(from.bytes()) / t.median);
  }
  const int64_t n = 8192;
  Buffer<bf16> a(n * n), b(n * n), d(n * n);
  a.fill(1.0), b.fill(1.0);
  GemmArgs args;
  args.transpose_b = true, args.m = args.n = args.k = args.lda = args.ldb = args.ldd = n;
  args.a = a.get(), args.b = b.get(), args.d = d.get(), args.type = args.out_type = CUDA_R_16BF;
  const Times t = timer.measure(20, [&] { require(gemm.run(args, Timer::stream)); });
  std::printf("ceiling  matmul 8192^3 bf16, random data: %.3f ms, %.0f TFLOP/s\n", t.median,
              2e-9 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / t.median);
}

struct Weights {
  Buffer<float> norm, bias;
  Buffer<bf16> in_proj, out_proj;
  explicit Weights(const RatShape& s)
      : norm(s.channels()), bias(s.channels()), in_proj(s.proj_width() * s.channels()), out_proj(s.channels() * s.channels()) {
    const double scale = 1.0 / std::sqrt(static_cast<double>(s.channels()));
    norm.fill(0.1, 1.0), bias.fill(1.0), in_proj.fill(scale), out_proj.fill(scale);
  }
  RatWeights<bf16> view() const { return {norm.get(), in_proj.get(), bias.get(), out_proj.get()}; }
};

void layer(const Options& o, const char* what, int64_t seq_len, Gemm& gemm, Report& report) {
  const bool training = std::string(what) == "train";
  const RatShape s{std::max<int64_t>(1, o.tokens / seq_len), seq_len, o.heads, o.d_model / o.heads, o.groups, o.chunk};
  const int64_t plane = s.rows() * s.channels();
  Weights weights(s);
  Buffer<bf16> x(plane), out(plane), grad_out(training ? plane : 1);
  x.fill(1.0), grad_out.fill(1.0);
  Buffer<float2> rope(s.chunks() * s.head_size / 2);
  require(rope_table(rope.get(), s.chunks(), s.head_size, 10000.0, nullptr));
  Buffer<unsigned char> memory(static_cast<int64_t>(rat_buffers<bf16>(s, training, nullptr, nullptr)));
  Buffer<float> g_norm(s.channels()), g_bias(s.channels()), g_in(training ? s.proj_width() * s.channels() : 1),
      g_out(training ? s.channels() * s.channels() : 1);
  RatLayerBackwardArgs<bf16> args;
  RatLayerArgs<bf16>& forward = args.forward;
  rat_buffers<bf16>(s, training, memory.get(), &forward.buffers);
  forward.shape = s, forward.weights = weights.view(), forward.rope = rope.get(), forward.path = chosen_path(o);
  forward.x = forward.residual = x.get(), forward.out = out.get(), forward.training = training;
  args.grad_out = grad_out.get(), args.grad_x = forward.buffers.normed, args.residual_gradient = true;
  args.gradients = {g_norm.get(), g_in.get(), g_bias.get(), g_out.get()};
  const auto step = [&] {
    require(rat_layer<bf16>(forward, gemm, Timer::stream));
    if (training) require(rat_layer_backward<bf16>(args, gemm, Timer::stream));
  };
  Timer timer;
  const Times total = timer.measure(o.reps, step), again = timer.measure(o.reps, step);
  report.row(what, o, seq_len, s.batch, path_name(forward.path), total, s.rows(), allocated + gemm.workspace_bytes());
  std::printf("         second reading %.4f ms\n", again.median);
  StageTimes stages;
  forward.after_stage = [&](const char* stage) { stages.mark(stage); };
  for (int i = 0; i < 10; ++i) {
    stages.begin();
    step();
    stages.collect();
  }
  stages.each([&](const std::string& stage, const Times& t) {
    std::printf("  %-26s %8.3f ms", stage.c_str(), t.median);
    if (const double flops = stage_flops(stage, s); flops > 0.0) std::printf("  %6.0f TFLOP/s", flops / t.median * 1e-9);
    else std::printf("                ");
    if (const double bytes = stage_bytes(stage, s); bytes > 0.0) std::printf("  %6.2f TB/s", bytes / t.median * 1e-9);
    std::printf("\n");
  });
}

void gelu_products(const Options& o, Gemm& gemm) {
  const int64_t rows = o.tokens, channels = o.d_model, width = 4 * channels;
  Buffer<bf16> x(rows * channels), weight(width * channels), slope(rows * width), out(rows * width);
  x.fill(1.0), weight.fill(1.0 / std::sqrt(static_cast<double>(channels))), slope.fill(1.0);
  const double flops = 2.0 * static_cast<double>(rows) * static_cast<double>(channels) * static_cast<double>(width);
  const auto report = [&](const char* what, GeluPath path, const Times& t) {
    std::printf("%-22s %-8s D=%-5lld N=%-7lld %8.4f ms (%.4f .. %.4f)  %6.0f TFLOP/s\n", what,
                path == GeluPath::fused ? "fused" : "separate", static_cast<long long>(channels),
                static_cast<long long>(rows), t.median, t.q1, t.q3, flops / t.median * 1e-9);
  };
  Timer timer;
  std::vector<GeluPath> paths{GeluPath::separate};
  if (best_gelu_path() == GeluPath::fused) paths.push_back(GeluPath::fused);
  for (const GeluPath path : paths) {
    report("gelu_product", path, timer.measure(o.reps, [&] {
      require(gelu_product({x.get(), weight.get(), slope.get(), out.get(), rows, channels, width}, path, gemm, Timer::stream));
    }));
    report("gelu_product_backward", path, timer.measure(o.reps, [&] {
      require(gelu_product_backward({x.get(), weight.get(), slope.get(), out.get(), rows, channels, width}, path, gemm,
                                    Timer::stream));
    }));
  }
}

// A captured graph of several steps, each with weights, states and caches of its own, as the layers of a model have.
// C: what the caches are of.
template <class C>
void decode(const Options& o, int64_t seq_len, int64_t batch, Gemm& gemm, Report& report) {
  RatShape s{batch, 1, o.heads, o.d_model / o.heads, o.groups, o.chunk};
  const int64_t capacity = seq_len / o.chunk + 1, D = s.channels(), cells = batch * D * capacity;
  const int layers = batch * seq_len > int64_t{4} << 20 ? 2 : 4;
  Buffer<float2> rope((capacity + 1) * s.head_size / 2);
  require(rope_table(rope.get(), capacity + 1, s.head_size, 10000.0, nullptr));
  Buffer<int32_t> position(1);
  const int32_t now = static_cast<int32_t>(seq_len - 2);  // in the middle of the last chunk: nothing is appended
  require(cudaMemcpy(position.get(), &now, sizeof now, cudaMemcpyHostToDevice), "position");
  struct Layer {
    Weights weights;
    Buffer<C> keys, values;
    Buffer<ushort2> scales;
    Buffer<bf16> x, normed, proj, y, out;
    Buffer<float> state_k, state_v;
    Buffer<unsigned char> workspace;
    Layer(const RatShape& s, int64_t cells, std::size_t workspace_bytes)
        : weights(s), keys(cells), values(cells), scales(cells / s.head_size), x(s.batch * s.channels()),
          normed(s.batch * s.channels()),
          proj(s.batch * s.proj_width()), y(s.batch * s.channels()), out(s.batch * s.channels()),
          state_k(s.batch * s.channels()), state_v(s.batch * s.channels()), workspace(static_cast<int64_t>(workspace_bytes)) {
      keys.fill(0.5), values.fill(0.5), x.fill(1.0), state_k.fill(0.5), state_v.fill(0.5);
      require(cudaMemset(workspace.get(), 0, workspace.bytes()), "workspace");
      const std::vector<ushort2> ones(scales.bytes() / sizeof(ushort2), ushort2{0x3f80, 0x3f80});
      require(cudaMemcpy(scales.get(), ones.data(), scales.bytes(), cudaMemcpyHostToDevice), "scales");
    }
  };
  const int splits = rat_decode_splits(s, seq_len / o.chunk);
  std::vector<std::unique_ptr<Layer>> all;
  for (int i = 0; i < layers; ++i) all.push_back(std::make_unique<Layer>(s, cells, rat_decode_workspace(s, splits)));
  cudaStream_t stream = nullptr;
  require(cudaStreamCreate(&stream), "stream");
  const auto step = [&] {
    for (const auto& l : all) {
      LayerStepArgs<bf16, bf16, C> a;
      a.decode.shape = s, a.decode.capacity = capacity, a.decode.angles = capacity + 1, a.decode.position = position.get();
      a.decode.gate_bias = l->weights.bias.get(), a.decode.rope = rope.get();
      a.decode.state_k = l->state_k.get(), a.decode.state_v = l->state_v.get();
      a.decode.keys = head_major(l->keys.get(), s, capacity), a.decode.values = head_major(l->values.get(), s, capacity);
      a.decode.scales = scale_pairs(l->scales.get(), s, capacity);
      a.decode.splits = splits, a.decode.workspace = reinterpret_cast<float*>(l->workspace.get());
      a.weights = l->weights.view(), a.x = a.residual = l->x.get(), a.normed = l->normed.get();
      a.proj = l->proj.get(), a.y = l->y.get(), a.out = l->out.get();
      require(layer_step<bf16, bf16, C>(a, gemm, stream));
    }
  };
  step();  // plans the products
  require(cudaStreamSynchronize(stream), "decode");
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  step();
  require(cudaStreamEndCapture(stream, &graph), "capture");
  require(cudaGraphInstantiate(&ready, graph, 0), "graph");
  Timer timer;
  Times t = timer.measure(std::max(o.reps, 50), [&] { require(cudaGraphLaunch(ready, Timer::stream), "graph"); });
  for (double* ms : {&t.median, &t.q1, &t.q3}) *ms /= layers;
  report.row("decode", o, seq_len, batch, "graph", t, batch, allocated / static_cast<std::size_t>(layers));
  const double row = 2.0 * sizeof(C) * static_cast<double>(s.head_size) + (sizeof(C) == 1 ? sizeof(ushort2) : 0);
  const double cache = row * static_cast<double>(batch * s.heads) * static_cast<double>(seq_len / o.chunk);
  const double weights = 2.0 * static_cast<double>(D) * static_cast<double>(s.proj_width() + D);
  std::printf("         %d split(s); cache (%s) and weights %.3f GB: %.2f TB/s over the whole step\n", splits,
              o.cache.c_str(), (cache + weights) * 1e-9,
              (cache + weights) / t.median * 1e-9);
  cudaGraphExecDestroy(ready);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace rat::cuda_test

int main(int argc, char** argv) {
  using namespace rat::cuda_test;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--what") o.what.push_back(value);
    else if (name == "--seq-len") o.seq_lens.push_back(std::stoll(value));
    else if (name == "--batch") o.batches.push_back(std::stoll(value));
    else if (name == "--chunk") o.chunk = std::stoll(value);
    else if (name == "--tokens") o.tokens = std::stoll(value);
    else if (name == "--d-model") o.d_model = std::stoll(value);
    else if (name == "--heads") o.heads = std::stoll(value);
    else if (name == "--groups") o.groups = std::stoll(value);
    else if (name == "--path") o.path = value;
    else if (name == "--cache" && (value == "bf16" || value == "fp8")) o.cache = value;
    else if (name == "--reps") o.reps = std::stoi(value);
    else if (name == "--json") o.json = value;
    else stop("unknown option " + name);
  }
  if (o.what.empty()) o.what = {"ceilings", "train", "prefill", "decode"};
  if (o.seq_lens.empty()) o.seq_lens = {4096};
  if (o.batches.empty()) o.batches = {512};
  rat::kernels::cuda::Gemm gemm;
  require(gemm.create());
  gemm.set_tuning(true);
  Report report(o.json);
  for (const std::string& what : o.what) {
    if (what == "ceilings") ceilings(gemm);
    if (what == "gelu") gelu_products(o, gemm);
    for (const int64_t seq_len : o.seq_lens) {
      if (what == "train" || what == "prefill") layer(o, what.c_str(), seq_len, gemm, report);
      if (what == "decode")
        for (const int64_t batch : o.batches)
          o.cache == "fp8" ? decode<e4m3>(o, seq_len, batch, gemm, report)
                           : decode<bf16>(o, seq_len, batch, gemm, report);
    }
  }
  return 0;
}
