// Whole RAT layers against the golden tensors, f32 and bf16: output, gradients, and token by token.
#include <algorithm>
#include <fstream>
#include <map>

#include "kernels/cuda/rat_layer.h"
#include "tests/cuda/suites.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

// The float32 tensors of a safetensors file, and the settings of its cases as text.
class GoldenFile {
 public:
  explicit GoldenFile(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    uint64_t header_bytes = 0;
    in.read(reinterpret_cast<char*>(&header_bytes), 8);
    if (!in || header_bytes > (uint64_t{1} << 26)) stop("cannot read " + path);
    header_.resize(header_bytes);
    in.read(header_.data(), static_cast<std::streamsize>(header_bytes));
    data_.assign(std::istreambuf_iterator<char>(in), {});
    const std::size_t metadata = header_.find("__metadata__");
    settings_ = header_.substr(metadata, header_.find("}\"}", metadata) + 1 - metadata);
    settings_.erase(std::remove(settings_.begin(), settings_.end(), '\\'), settings_.end());
  }

  // "" when there is no such tensor of float32.
  Doubles tensor(const std::string& name) const {
    const std::size_t at = header_.find("\"" + name + "\":{");
    if (at == std::string::npos) return {};
    const std::string entry = header_.substr(at, header_.find('}', at) - at);
    if (entry.find("\"F32\"") == std::string::npos) return {};
    unsigned long long begin = 0, end = 0;
    const std::size_t offsets = entry.find("\"data_offsets\":[");
    if (std::sscanf(entry.c_str() + offsets, "\"data_offsets\":[%llu,%llu]", &begin, &end) != 2 || end > data_.size()) return {};
    Doubles values((end - begin) / 4);
    for (std::size_t i = 0; i < values.size(); ++i) {
      float value;
      std::memcpy(&value, data_.data() + begin + 4 * i, 4);
      values[i] = value;
    }
    return values;
  }

  std::vector<std::string> rat_cases() const {
    std::vector<std::string> names;
    for (std::size_t at = settings_.find("{\"kind\": \"rat\","); at != std::string::npos;
         at = settings_.find("{\"kind\": \"rat\",", at + 1)) {
      const std::size_t end = settings_.rfind('"', at), begin = settings_.rfind('"', end - 1);
      if (end + 3 == at) names.push_back(settings_.substr(begin + 1, end - begin - 1));  // not a layer of a model case
    }
    return names;
  }
  std::string settings(const std::string& name) const {
    const std::size_t at = settings_.find("\"" + name + "\": {");
    return settings_.substr(at, settings_.find('}', at) - at);
  }

 private:
  std::string header_, settings_;
  std::vector<char> data_;
};

int64_t setting(const std::string& settings, const std::string& key, int64_t otherwise) {
  const std::size_t at = settings.find("\"" + key + "\": ");
  return at == std::string::npos ? otherwise : std::atoll(settings.c_str() + at + key.size() + 4);
}

template <class T>
void golden_case(Checks& checks, const GoldenFile& file, const std::string& name, Gemm& gemm) {
  const std::string settings = file.settings(name);
  RatShape s;
  s.batch = setting(settings, "batch", 0), s.tokens = setting(settings, "seq_len", 0), s.heads = setting(settings, "heads", 0);
  s.head_size = setting(settings, "d_model", 0) / s.heads;
  s.groups = setting(settings, "groups", 2), s.chunk_len = setting(settings, "chunk", 0);
  const bool positions = settings.find("\"pos\": \"none\"") == std::string::npos, exact = std::is_same_v<T, float>;
  const std::string title = std::string("golden ") + (exact ? "f32 " : "bf16 ") + name + " ";
  const auto values = [&](const char* what) {
    Doubles found = file.tensor(name + "/" + what);
    if (found.empty()) stop("the golden file has no " + name + "/" + what);
    return found;
  };
  const int64_t D = s.channels(), W = s.proj_width();
  Device<T> x(values("x")), grad_out(values("grad_out")), in_proj(values("param/in_proj")), out_proj(values("param/out_proj"));
  Device<float> norm(values("param/norm")), bias(values("param/gate_bias"));
  Device<T> out(x.count()), grad_x(x.count());
  Device<float> g_norm(D), g_in(W * D), g_bias(D), g_out(D * D);
  Device<float2> rope((s.chunks() + 1) * (s.head_size / 2));
  require(rope_table(rope.get(), s.chunks() + 1, s.head_size, 10000.0, nullptr));
  Device<unsigned char> memory(static_cast<int64_t>(rat_buffers<T>(s, true, nullptr, nullptr)));
  RatLayerBackwardArgs<T> args;
  RatLayerArgs<T>& forward = args.forward;
  rat_buffers<T>(s, true, memory.get(), &forward.buffers);
  forward.shape = s, forward.weights = {norm.get(), in_proj.get(), bias.get(), out_proj.get()};
  forward.rope = positions ? rope.get() : nullptr, forward.path = best_path<T>(s.head_size);
  forward.x = x.get(), forward.out = out.get(), forward.training = true;
  args.grad_out = grad_out.get(), args.grad_x = grad_x.get();
  args.gradients = {g_norm.get(), g_in.get(), g_bias.get(), g_out.get()};
  require(rat_layer<T>(forward, gemm, nullptr));
  require(rat_layer_backward<T>(args, gemm, nullptr));
  require(cudaDeviceSynchronize(), name.c_str());
  const double output_bound = exact ? 1e-5 : 2e-2, gradient_bound = exact ? 5e-5 : 2e-2;
  checks.within(title + "output", out.values(), values("y"), output_bound);
  checks.within(title + "grad x", grad_x.values(), values("grad_x"), gradient_bound);
  checks.within(title + "grad norm", g_norm.values(), values("grad/norm"), gradient_bound);
  checks.within(title + "grad in_proj", g_in.values(), values("grad/in_proj"), gradient_bound);
  checks.within(title + "grad gate_bias", g_bias.values(), values("grad/gate_bias"), gradient_bound);
  checks.within(title + "grad out_proj", g_out.values(), values("grad/out_proj"), gradient_bound);

  // Token by token: the same outputs.
  RatShape one = s;
  one.tokens = 1;
  const int64_t capacity = s.full_chunks() + 1;
  Device<T> keys(s.batch * D * capacity), cached(keys.count()), row(s.batch * D), normed(row.count()), y(row.count()),
      stepped(row.count()), proj(s.batch * W);
  Device<float> state_k(s.batch * D), state_v(s.batch * D);
  Device<int32_t> position(Doubles{0.0});
  LayerStepArgs<T> step;
  step.decode.shape = one, step.decode.capacity = capacity, step.decode.angles = s.chunks() + 1,
  step.decode.position = position.get();
  step.decode.gate_bias = bias.get(), step.decode.rope = forward.rope;
  step.decode.state_k = state_k.get(), step.decode.state_v = state_v.get();
  step.decode.keys = head_major(keys.get(), one, capacity), step.decode.values = head_major(cached.get(), one, capacity);
  step.weights = forward.weights, step.x = row.get(), step.normed = normed.get(), step.proj = proj.get();
  step.y = y.get(), step.out = stepped.get();
  Doubles all(static_cast<std::size_t>(x.count()));
  for (int64_t t = 0; t < s.tokens; ++t) {
    require(cudaMemcpy2D(row.get(), static_cast<std::size_t>(D) * sizeof(T), x.get() + t * D,
                         static_cast<std::size_t>(s.tokens * D) * sizeof(T), static_cast<std::size_t>(D) * sizeof(T),
                         static_cast<std::size_t>(s.batch), cudaMemcpyDeviceToDevice),
            "one token");
    require(layer_step<T>(step, gemm, nullptr));
    require(advance_position(position.get(), nullptr));
    const Doubles now = stepped.values();
    for (int64_t b = 0; b < s.batch; ++b) std::copy_n(now.begin() + b * D, D, all.begin() + (b * s.tokens + t) * D);
  }
  checks.within(title + "decode", all, values("y"), output_bound);
}

}  // namespace

void test_golden(Checks& checks, const std::string& folder) {
  Gemm gemm;
  require(gemm.create());
  for (const char* file_name : {"mixers.safetensors", "awkward.safetensors"}) {
    const GoldenFile file(folder + "/" + file_name);
    const auto names = file.rat_cases();
    checks.that(std::string(file_name) + " has RAT cases", names.size() >= 4);
    for (const std::string& name : names) {
      golden_case<float>(checks, file, name, gemm);
      golden_case<bf16>(checks, file, name, gemm);
    }
  }
}

}  // namespace rat::cuda_test
