// Whole layers of attention over tokens against float64: from weights and residual stream to their gradients.
#include "kernels/cuda/attention_layer.h"

#include "kernels/cuda/chunk_scan.h"
#include "kernels/cuda/dilated_keys.h"
#include "kernels/cuda/group_decode.h"
#include "kernels/cuda/rat_decode.h"
#include "tests/cuda/suites.h"
#include "tests/cuda/token_reference.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

constexpr double kForwardBound = 8e-3, kBackwardBound = 1.6e-2;  // every tensor between the streams is rounded to bf16

// op(a) (m, k) op(b) (k, n) of row-major matrices with row strides.
Doubles product(const Doubles& a, bool a_turned, int64_t lda, const Doubles& b, bool b_turned, int64_t ldb, int64_t m,
                int64_t n, int64_t k) {
  Doubles result(at(m * n), 0.0);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t l = 0; l < k; ++l)
        result[at(i * n + j)] += a[at(a_turned ? l * lda + i : i * lda + l)] * b[at(b_turned ? j * ldb + l : l * ldb + j)];
  return result;
}

struct Kind {
  bool positions, recurrent = false;
  int64_t kv_heads = 0;
  int64_t dilation = 1, initial = 0;
};

// What lies between the projections of a layer, and its way back: the attention itself, of keys and values that heads may
// share, or, recurrent, with the states before it and the gate after it.
class Core {
 public:
  Core(const RatShape& s, const Kind& kind) : recurrent_(kind.recurrent), positions_(kind.positions) {
    attention_.s = s;
    attention_.dilation = kind.dilation, attention_.initial = kind.initial;
    KV_ = at(kind.kv_heads > 0 ? kind.kv_heads * s.head_size : s.channels());
  }
  std::size_t width() const { return recurrent_ ? 5 * D() : D() + 2 * KV_; }
  Doubles y, grad_proj;  // (N, D), (N, W)

  void run(const Doubles& proj, const Doubles& grad_y) {
    const RatShape& s = attention_.s;
    attention_.proj.assign(at(s.rows() * attention_.width()), 0.0);
    attention_.grad_y = grad_y;
    each([&](std::size_t row, std::size_t to, std::size_t i) {
      for (std::size_t part = 0; part < 3; ++part) attention_.proj[to + part * D() + i] = proj[row + column(part, i)];
      if (!recurrent_) return;
      attention_.proj[to + i] = carried(proj, row, 3, to, 0, i);
      attention_.proj[to + 2 * D() + i] = carried(proj, row, 2, to, 2, i);
      attention_.grad_y[row / width() * D() + i] *= sigmoid(proj[row + i]);
    });
    unrotated_ = attention_.proj;
    if (positions_) rotate_rows(attention_.proj, attention_, 1.0);
    attention_.run();
    if (positions_) rotate_rows(attention_.grad_proj, attention_, -1.0);
    y = attention_.y;
    grad_proj.assign(proj.size(), 0.0);
    each([&](std::size_t row, std::size_t to, std::size_t i) {
      for (std::size_t part = 0; part < 3; ++part) grad_proj[row + column(part, i)] += attention_.grad_proj[to + part * D() + i];
    });
    if (recurrent_) leave(proj, grad_y);
  }

 private:
  static double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
  std::size_t D() const { return at(attention_.s.channels()); }
  // Where a projected row has channel i of value, query or key (0, 1, 2); recurrent: what goes there is written afterwards.
  std::size_t column(std::size_t part, std::size_t i) const {
    return part == 1 ? (recurrent_ ? D() : KV_) + i : (part == 0 ? 0 : KV_ + D()) + i % KV_;
  }
  // body(where row n begins in proj, and in the attention's rows, channel), in the order of tokens.
  template <class Body>
  void each(const Body& body) const {
    for (std::size_t n = 0; n < at(attention_.s.rows()); ++n)
      for (std::size_t i = 0; i < D(); ++i) body(n * width(), n * at(attention_.width()), i);
  }
  bool begins(std::size_t row) const { return row / width() % at(attention_.s.tokens) == 0; }
  // The state of `part` of proj after this token, from that before it in `held` of the attention's rows.
  double carried(const Doubles& proj, std::size_t row, std::size_t part, std::size_t to, std::size_t held, std::size_t i) const {
    const double gate = sigmoid(proj[row + 4 * D() + i]);
    const double before = begins(row) ? 0.0 : attention_.proj[to - at(attention_.width()) + held * D() + i];
    return gate * before + (1.0 - gate) * proj[row + part * D() + i];
  }
  void leave(const Doubles& proj, const Doubles& grad_y) {
    const std::size_t rows = at(attention_.s.rows());
    std::vector<double> carry_k(D()), carry_v(D());
    for (std::size_t n = rows; n-- > 0;)
      for (std::size_t i = 0; i < D(); ++i) {
        const std::size_t row = n * width(), to = n * at(attention_.width());
        if (n + 1 == rows || begins(row + width())) carry_k[i] = carry_v[i] = 0.0;
        const double gate = sigmoid(proj[row + 4 * D() + i]), open = sigmoid(proj[row + i]);
        const double to_k = attention_.grad_proj[to + 2 * D() + i] + carry_k[i], to_v = attention_.grad_proj[to + i] + carry_v[i];
        const auto before = [&](std::size_t held) {
          return begins(row) ? 0.0 : unrotated_[to - at(attention_.width()) + held * D() + i];
        };
        grad_proj[row + i] = grad_y[n * D() + i] * y[n * D() + i] * open * (1.0 - open);
        y[n * D() + i] *= open;
        grad_proj[row + 2 * D() + i] = (1.0 - gate) * to_k;
        grad_proj[row + 3 * D() + i] = (1.0 - gate) * to_v;
        grad_proj[row + 4 * D() + i] = gate * (1.0 - gate) * ((before(2) - proj[row + 2 * D() + i]) * to_k +
                                                              (before(0) - proj[row + 3 * D() + i]) * to_v);
        carry_k[i] = gate * to_k, carry_v[i] = gate * to_v;
      }
  }

  TokenReference attention_;
  std::size_t KV_;
  bool recurrent_, positions_;
  Doubles unrotated_;
};

// A whole layer from weights and residual stream to their gradients, which are added to what was there.
struct LayerReference {
  RatShape s;
  Core core;
  Doubles x, grad, norm, in_proj, out_proj;  // (N, D), (N, D), (D), (W, D), (D, D)
  Doubles out, grad_x, grad_norm, grad_in_proj, grad_out_proj;

  LayerReference(const RatShape& shape, const Kind& kind) : s(shape), core(shape, kind) {
    std::mt19937_64 random(77);
    const int64_t D = s.channels(), N = s.rows(), W = width();
    const double size = 1.0 / std::sqrt(static_cast<double>(D));
    x = random_values<float>(N * D, random), grad = random_values<bf16>(N * D, random);
    norm = random_values<float>(D, random, 0.3, 1.0);
    in_proj = random_values<bf16>(W * D, random, size), out_proj = random_values<bf16>(D * D, random, size);
    grad_norm = random_values<float>(D, random);
    grad_in_proj = random_values<float>(W * D, random), grad_out_proj = random_values<float>(D * D, random);
  }
  int64_t width() const { return static_cast<int64_t>(core.width()); }
  void run() {
    const int64_t D = s.channels(), N = s.rows(), W = width();
    Doubles normed = x, rstd(at(N), 0.0);
    for (int64_t i = 0; i < N * D; ++i) rstd[at(i / D)] += x[at(i)] * x[at(i)] / static_cast<double>(D);
    for (double& r : rstd) r = 1.0 / std::sqrt(r + 1e-6);
    for (int64_t i = 0; i < N * D; ++i) normed[at(i)] *= rstd[at(i / D)] * norm[at(i % D)];
    core.run(product(normed, false, D, in_proj, true, D, N, W, D), product(grad, false, D, out_proj, false, D, N, D, D));
    out = product(core.y, false, D, out_proj, true, D, N, D, D);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += x[i];
    add(grad_out_proj, product(grad, true, D, core.y, false, D, D, D, N));
    add(grad_in_proj, product(core.grad_proj, true, W, normed, false, D, W, D, N));
    const Doubles grad_normed = product(core.grad_proj, false, W, in_proj, false, D, N, D, W);
    Doubles mean(at(N), 0.0);
    for (int64_t i = 0; i < N * D; ++i)
      mean[at(i / D)] += grad_normed[at(i)] * norm[at(i % D)] * x[at(i)] / static_cast<double>(D);
    grad_x = grad;
    for (int64_t i = 0; i < N * D; ++i) {
      const double r = rstd[at(i / D)];
      grad_norm[at(i % D)] += grad_normed[at(i)] * x[at(i)] * r;
      grad_x[at(i)] += r * (grad_normed[at(i)] * norm[at(i % D)] - x[at(i)] * r * r * mean[at(i / D)]);
    }
  }

 private:
  static void add(Doubles& to, const Doubles& more) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += more[i];
  }
};

void layer_case(Checks& checks, Gemm& gemm, const RatShape& s, const Kind& kind, AttentionPath path) {
  if (!path_problem<bf16>(path, s.head_size).empty()) return;
  LayerReference r(s, kind);
  const int64_t D = s.channels(), N = s.rows(), W = r.width();
  Device<float> x(r.x), norm(r.norm), out(N * D), rope(s.tokens * s.head_size);
  Device<bf16> in_proj(r.in_proj), out_proj(r.out_proj), normed(N * D), proj(N * W), y(N * D), keys(N * D), values(N * D),
      grad(r.grad), grad_y(N * D), grad_proj(N * W), grad_keys(N * D), grad_values(N * D);
  Device<float> rstd(N), lse(N * s.heads), delta(N * s.heads), workspace(attention_layer_workspace(s, kind.recurrent));
  const bool is_dilated = kind.dilation > 1;
  const RatShape before = is_dilated ? before_window(s, kind.dilation, kind.initial) : RatShape();
  const int64_t K = is_dilated ? N / s.tokens * before.keys() * D : 0;
  Device<bf16> dilated_keys(K), dilated_values(K);
  Device<float> window_lse(N * s.heads), grad_dilated_keys(K), grad_dilated_values(K);
  Device<float> grad_queries(is_dilated ? N * D : token_gradient_sums(s, path));
  Device<float> grad_norm(r.grad_norm), grad_in_proj(r.grad_in_proj), grad_out_proj(r.grad_out_proj);
  r.run();
  auto* const turns = reinterpret_cast<float2*>(rope.get());
  require(rope_table(turns, s.tokens, s.head_size, 10000.0, nullptr));
  AttentionLayerArgs a;
  a.shape = s, a.recurrent = kind.recurrent, a.kv_heads = kind.kv_heads;
  a.dilated = {before, dilated_keys.get(), dilated_values.get(), window_lse.get(), grad_dilated_keys.get(),
               grad_dilated_values.get()};
  a.weights = {norm.get(), in_proj.get(), out_proj.get()};
  a.buffers = {normed.get(), proj.get(), y.get(), keys.get(), values.get(), rstd.get(), lse.get(), grad_y.get(),
               grad_proj.get(), grad_keys.get(), grad_values.get(), delta.get(), grad_queries.get(), workspace.get()};
  a.rope = kind.positions ? turns : nullptr;
  a.path = path;
  a.x = a.residual = x.get(), a.out = out.get();
  require(attention_layer(a, gemm, nullptr));
  AttentionLayerBackwardArgs back;
  back.forward = a, back.grad = grad.get();
  back.gradients = {grad_norm.get(), grad_in_proj.get(), grad_out_proj.get()};
  require(attention_layer_backward(back, gemm, nullptr));
  require(cudaDeviceSynchronize(), "attention_layer");
  const std::string name = std::string(kind.recurrent ? "recurrent layer " : "layer ") + path_name(a.path) +
                           (kind.positions ? " rope " : " ") + describe_tokens(s) + "kv " + std::to_string(kind.kv_heads) + " D" +
                           std::to_string(kind.dilation) + " S" + std::to_string(kind.initial) + " ";
  checks.within(name + "out", out.values(), r.out, kForwardBound);
  checks.within(name + "grad_x", grad.values(), r.grad_x, kBackwardBound);
  checks.within(name + "grad_norm", grad_norm.values(), r.grad_norm, kBackwardBound);
  checks.within(name + "grad_in_proj", grad_in_proj.values(), r.grad_in_proj, kBackwardBound);
  checks.within(name + "grad_out_proj", grad_out_proj.values(), r.grad_out_proj, kBackwardBound);
}

// Token by token from an empty cache of type C.
template <class C>
Doubles decode(const RatShape& s, const Kind& kind, int splits, const Doubles& all,
               Status (*one_token)(const RatDecodeArgs<bf16, C>&, cudaStream_t) = rat_decode<bf16, C>) {
  const int64_t W = static_cast<int64_t>(all.size()) / s.rows(), D = s.channels(), P = s.head_size;
  const Device<bf16> proj(all), step(s.batch * W);
  Device<bf16> y(s.batch * D);
  RatDecodeArgs<bf16, C> args;
  args.shape = s, args.shape.tokens = 1;
  args.recurrent = kind.recurrent, args.kv_heads = kind.kv_heads;
  int64_t rows = s.window < 0 ? s.tokens : s.window + 1;
  if (kind.dilation > 1) {
    args.before = before_window(s, kind.dilation, kind.initial);
    rows += args.before.keys_seen(s.tokens + s.window);  // of all tokens
  }
  const RatShape cached = of_heads(args.shape, args.key_heads());
  const Device<C> keys(s.batch * cached.heads * P * rows), values(keys.count());
  const Device<ushort2> scales(s.batch * cached.heads * rows);
  const Device<float> state_k(s.batch * D), state_v(s.batch * D);
  const Device<float2> rope(s.tokens * (P / 2));
  const Device<int32_t> position(Doubles{0.0});
  const Device<float> workspace(static_cast<int64_t>(rat_decode_workspace(args.shape, splits) / sizeof(float)));
  require(rope_table(rope.get(), s.tokens, P, 10000.0, nullptr));
  require(cudaMemset(workspace.get(), 0, workspace.bytes()), "workspace");
  args.capacity = rows, args.angles = s.tokens, args.position = position.get();
  args.proj = step.get(), args.proj_stride = W, args.rope = kind.positions ? rope.get() : nullptr;
  args.state_k = state_k.get(), args.state_v = state_v.get();
  args.keys = head_major(keys.get(), cached, rows), args.values = head_major(values.get(), cached, rows);
  args.scales = scale_pairs(scales.get(), cached, rows);
  args.y = y.get(), args.splits = splits, args.keys_of_split = 1, args.workspace = workspace.get();
  const std::size_t row = at(W) * sizeof(bf16);
  Doubles decoded(at(s.rows() * D));
  for (int64_t t = 0; t < s.tokens; ++t) {
    require(cudaMemcpy2D(step.get(), row, proj.get() + t * W, row * at(s.tokens), row, at(s.batch), cudaMemcpyDeviceToDevice),
            "one token");
    y.poison();
    require(one_token(args, nullptr));
    require(advance_position(position.get(), nullptr));
    const Doubles now = y.values();
    for (int64_t b = 0; b < s.batch; ++b)
      std::copy_n(now.begin() + b * D, D, decoded.begin() + (b * s.tokens + t) * D);
  }
  return decoded;
}

template <class C>
void decode_case(Checks& checks, const RatShape& s, const Kind& kind, int splits) {
  std::mt19937_64 random(static_cast<uint64_t>(s.tokens + splits));
  Core core(s, kind);
  const Doubles all = random_values<bf16>(s.rows() * static_cast<int64_t>(core.width()), random);
  core.run(all, Doubles(at(s.rows() * s.channels()), 0.0));
  const bool exact = std::is_same_v<C, bf16>;
  checks.within(std::string(kind.recurrent ? "decode recurrent " : "decode ") + (exact ? "bf16 " : "e4m3 ") + describe_tokens(s) +
                    "kv " + std::to_string(kind.kv_heads) + " D" + std::to_string(kind.dilation) + " S" +
                    std::to_string(kind.initial) + " splits " + std::to_string(splits),
                decode<C>(s, kind, splits, all), core.y, exact ? 8e-3 : 4e-2);
  if (!group_decode_takes(s, kind.kv_heads)) return;
  checks.within(std::string("decode groups ") + (exact ? "bf16 " : "e4m3 ") + describe_tokens(s) + "kv " +
                    std::to_string(kind.kv_heads) + " splits " + std::to_string(splits),
                decode<C>(s, kind, splits, all, group_decode<C>), core.y, exact ? 8e-3 : 4e-2);
}

// A key of NaN, in the first of the heads that are shared: all that share it are NaN from there on, and no others.
template <class C>
void shared_nan_case(Checks& checks, int64_t kv_heads, int splits) {
  const RatShape s = attention_shape(2, 90, 12, 64, -1);
  const int64_t KV = kv_heads * s.head_size, W = s.channels() + 2 * KV, bad = 40;
  std::mt19937_64 random(7);
  Doubles all = random_values<bf16>(s.rows() * W, random);
  all[at((s.tokens + bad) * W + KV + s.channels() + 5)] = NAN;  // of the second sequence
  const Doubles y = decode<C>(s, {true, false, kv_heads}, splits, all, group_decode<C>);
  bool seen = true, alone = true;
  for (int64_t row = 0; row < s.rows(); ++row)
    for (int64_t i = 0; i < s.channels(); ++i) {
      const bool hit = row >= s.tokens + bad && i / s.head_size % kv_heads == 0;
      const double value = y[at(row * s.channels() + i)];
      (hit ? seen : alone) &= hit ? std::isnan(value) : std::isfinite(value);
    }
  const std::string name = std::string(std::is_same_v<C, bf16> ? "bf16" : "e4m3") + ": a shared key of NaN, kv " + std::to_string(kv_heads) + " splits " + std::to_string(splits);
  checks.that(name + ": is NaN ever after", seen);
  checks.that(name + ": touches nothing else", alone);
}

void decode_cases(Checks& checks) {
  for (const int64_t P : {64, 128})
    for (const int splits : {1, 3})
      for (const bool positions : {true, false}) {
        const auto both = [&](const RatShape& s, const Kind& kind) {
          decode_case<bf16>(checks, s, kind, splits);
          decode_case<e4m3>(checks, s, kind, splits);
        };
        for (const int64_t window : {-1, 0, 9}) both(attention_shape(2, 70, 4, P, window), {positions, false, 2});
        both(attention_shape(1, 70, 3, P, 30), {positions, false, 1});
        both(attention_shape(1, 80, 20, P, 9), {positions, false, 1});  // more heads than a product has rows
        both(attention_shape(2, 70, 2, P, -1), {positions, true});
        both(attention_shape(2, 70, 2, P, 0), {positions, true, 0, 4, 0});
        both(attention_shape(1, 70, 2, P, 5), {positions, true, 0, 3, 4});
        both(attention_shape(1, 70, 2, P, 200), {positions, true, 0, 2, 100});
        both(attention_shape(1, 150, 2, P, 40), {positions, true, 0, 2, 1});
        if (!positions) continue;
        both(attention_shape(1, 280, 8, P, -1), {true, false, 1});  // several tiles for each warp
        both(attention_shape(2, 150, 8, P, 110), {true, false, 1});
        both(attention_shape(1, 80, 36, P, -1), {true, false, 2});
      }
  for (const int64_t kv_heads : {1, 2, 4})
    for (const int splits : {1, 2, 5}) {
      shared_nan_case<bf16>(checks, kv_heads, splits);
      shared_nan_case<e4m3>(checks, kv_heads, splits);
    }
}

// On the fastest path, as training takes it.
void layer_case(Checks& checks, Gemm& gemm, const RatShape& s, const Kind& kind) {
  layer_case(checks, gemm, s, kind, best_path<bf16>(s.head_size));
}

// Windows, dilations and first tokens that meet tiles, each other and the end of the sequence.
void dilated_cases(Checks& checks, Gemm& gemm) {
  struct Dilation {
    int64_t tokens, window, dilation, initial;
  };
  for (const Dilation& d : {Dilation{70, 0, 2, 0}, {70, 5, 4, 0}, {70, 0, 16, 0}, {70, 3, 7, 3}, {70, 0, 64, 1}, {70, 69, 4, 2},
                            {70, 200, 4, 0}, {70, 20, 100, 5}, {70, 10, 3, 66}, {300, 0, 2, 0}, {300, 17, 2, 9}, {300, 40, 5, 130}})
    for (const int64_t P : {64, 128})
      for (const AttentionPath path : {AttentionPath::simple, AttentionPath::mma, AttentionPath::wgmma})
        layer_case(checks, gemm, attention_shape(d.tokens > 100 ? 1 : 2, d.tokens, d.tokens > 100 ? 1 : 2, P, d.window),
                   {d.tokens < 100 || P == 64, true, 0, d.dilation, d.initial}, path);
}

}  // namespace

void test_few_attention_layers(Checks& checks) {
  Gemm gemm;
  require(gemm.create());
  layer_case(checks, gemm, attention_shape(1, 70, 2, 64, -1), {true, false, 1});
  layer_case(checks, gemm, attention_shape(1, 150, 1, 64, 5), {true, true, 0, 2, 3});
  layer_case(checks, gemm, attention_shape(1, 150, 1, 128, 0), {true, true, 0, 2, 0});
  decode_case<bf16>(checks, attention_shape(1, 20, 2, 64, 7), {true, false, 1}, 2);
  decode_case<bf16>(checks, attention_shape(1, 20, 20, 128, -1), {true, false, 1}, 2);
  decode_case<e4m3>(checks, attention_shape(2, 20, 2, 64, 3), {true, true, 0, 2, 3}, 2);
}

void test_attention_layers(Checks& checks) {
  Gemm gemm;
  require(gemm.create());
  dilated_cases(checks, gemm);
  decode_cases(checks);
  for (const bool positions : {false, true})
    for (const int64_t P : {64, 128}) {
      for (const int64_t window : {-1, 30}) {
        layer_case(checks, gemm, attention_shape(2, 70, 2, P, window), {positions});
        layer_case(checks, gemm, attention_shape(2, 70, 4, P, window), {positions, false, 2});
      }
      layer_case(checks, gemm, attention_shape(1, 70, 3, P, -1), {positions, false, 1});
      layer_case(checks, gemm, attention_shape(2, 70, 2, P, -1), {positions, true});
    }
}

}  // namespace rat::cuda_test
