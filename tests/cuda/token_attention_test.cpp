// Attention over tokens (offset 1), whole and over windows, against plain loops in float64: queries, keys and values lie in
// projected rows as the layer has them, gradients leave rounded and turned back.
#include <algorithm>
#include <utility>

#include "kernels/cuda/attention_layer.h"
#include "kernels/cuda/chunk_scan.h"
#include "kernels/cuda/rat_decode.h"
#include "kernels/cuda/rotate.h"
#include "tests/cuda/suites.h"
#include "tests/cuda/token_reference.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

constexpr double kF32 = 5e-6, kBf16 = 8e-3, kHostileF32 = 5e-5, kHostileBf16 = 1.5e-2, kE4m3 = 4e-2;
constexpr AttentionPath kPaths[] = {AttentionPath::simple, AttentionPath::mma, AttentionPath::wgmma};

template <class T>
constexpr const char* kName = std::is_same_v<T, float> ? "f32" : "bf16";

// NaN in the padding of every row.
Doubles poisoned_padding(Doubles proj, int64_t width) {
  for (std::size_t i = 0; i < proj.size(); ++i)
    if (static_cast<int64_t>(i) % width >= width - kPadding) proj[i] = NAN;
  return proj;
}
Doubles without_padding(const Doubles& proj, int64_t width) {
  Doubles result;
  for (std::size_t i = 0; i < proj.size(); ++i)
    if (static_cast<int64_t>(i) % width < width - kPadding) result.push_back(proj[i]);
  return result;
}
bool padding_untouched(const Doubles& proj, int64_t width) {
  for (std::size_t i = 0; i < proj.size(); ++i)
    if (static_cast<int64_t>(i) % width >= width - kPadding && !std::isnan(proj[i])) return false;
  return true;
}

template <class T>
struct Tokens {
  RatShape s;
  int64_t width;
  Device<T> proj, y, grad_y, grad_proj;
  Device<float> lse, delta;
  Device<float2> rope;

  explicit Tokens(const TokenReference& r)
      : s(r.s), width(r.width()), proj(s.rows() * width), y(s.rows() * s.channels()), grad_y(y.count()),
        grad_proj(proj.count()), lse(s.rows() * s.heads), delta(lse.count()), rope(s.tokens * (s.head_size / 2)) {
    require(rope_table(rope.get(), s.tokens, s.head_size, 10000.0, nullptr));
    proj.set(poisoned_padding(r.proj, width));
    grad_y.set(r.grad_y);
  }
  KeyRows<T> part(const Device<T>& rows, int64_t which) const {
    return {rows.get() + which * s.channels(), s.tokens * width, s.head_size, width};
  }
  void forward(AttentionPath path) {
    ChunkAttentionArgs<T> a;
    a.shape = s;
    a.q_rot = part(proj, 1).data, a.q_stride = width;
    a.keys = read_only(part(proj, 2)), a.values = read_only(part(proj, 0));
    a.y = y.get(), a.lse = lse.get();
    require(chunk_attention<T>(a, path, nullptr));
  }
  void backward(AttentionPath path, bool turned_back) {
    OutputGateBackwardArgs<T> sums;
    sums.shape = s, sums.grad_y = grad_y.get(), sums.y = y.get(), sums.delta = delta.get();
    require(output_gate_backward<T>(sums, nullptr));
    ChunkAttentionBackwardArgs<T> a;
    a.shape = s;
    a.q_rot = part(proj, 1).data, a.q_stride = width;
    a.keys = read_only(part(proj, 2)), a.values = read_only(part(proj, 0));
    a.grad_out = grad_y.get(), a.lse = lse.get(), a.delta = delta.get();
    const Device<float> query_sums(token_gradient_sums(s, path));
    const Device<int> turns(chunk_attention_turns(s));
    a.grad_q_rot = query_sums.get(), a.turns = turns.get();
    a.token_gradients = {part(grad_proj, 1), part(grad_proj, 2), part(grad_proj, 0), turned_back ? rope.get() : nullptr};
    require(chunk_attention_backward<T>(a, path, nullptr));
  }
};

template <class T>
void compare(Checks& checks, const std::string& name, TokenReference r, double bound) {
  const RatShape& s = r.s;
  r.run();
  Doubles turned = r.grad_proj;
  rotate_rows(turned, r, -1.0);
  Tokens<T> tokens(r);
  for (const AttentionPath path : kPaths) {
    if (!path_problem<T>(path, s.head_size).empty()) continue;
    for (const bool turned_back : {false, true}) {
      tokens.y.poison(), tokens.lse.poison(), tokens.delta.poison(), tokens.grad_proj.poison();
      tokens.forward(path);
      tokens.backward(path, turned_back);
      require(cudaDeviceSynchronize(), path_name(path));
      const std::string what = name + path_name(path) + " " + kName<T> + (turned_back ? " turned back " : " ");
      const Doubles grad = tokens.grad_proj.values();
      const Doubles& expected = turned_back ? turned : r.grad_proj;
      checks.within(what + "y", tokens.y.values(), r.y, bound);
      checks.within(what + "lse", tokens.lse.values(), r.lse, bound);
      checks.within(what + "delta", tokens.delta.values(), r.delta, 2.0 * bound);
      checks.within(what + "grad_proj", without_padding(grad, r.width()), without_padding(expected, r.width()), 2.0 * bound);
      checks.that(what + "leaves other columns alone", padding_untouched(grad, r.width()));
    }
  }
}

template <class T>
TokenReference random_tokens(const RatShape& s) {
  std::mt19937_64 random(static_cast<uint64_t>(s.tokens * 131 + s.window));
  TokenReference r;
  r.s = s;
  r.proj = random_values<T>(s.rows() * r.width(), random);
  r.grad_y = random_values<T>(s.rows() * s.channels(), random);
  return r;
}

template <class T>
void random_case(Checks& checks, int64_t batch, int64_t tokens, int64_t heads, int64_t head_size, int64_t window,
                 double bound) {
  const RatShape s = attention_shape(batch, tokens, heads, head_size, window);
  compare<T>(checks, describe_tokens(s), random_tokens<T>(s), bound);
}

// Scores that a softmax may stumble over.
template <class T>
void adversarial_case(Checks& checks, int64_t head_size, int64_t window, double bound) {
  const RatShape s = attention_shape(2, 200, 2, head_size, window);
  const double root = std::sqrt(static_cast<double>(head_size));
  const auto set_part = [&](TokenReference& r, int64_t part, const auto& value) {
    for (int64_t row = 0; row < s.rows(); ++row)
      for (int64_t i = 0; i < s.channels(); ++i) {
        double& x = r.proj[at(row * r.width() + part * s.channels() + i)];
        x = rounded<T>(value(x, row % s.tokens, i));
      }
  };
  const std::string name = describe_tokens(s);
  {  // every score near -100: LSE near -100
    TokenReference r = random_tokens<T>(s);
    const double size = std::sqrt(100.0 / root);
    set_part(r, 1, [&](double x, int64_t, int64_t) { return size + 0.01 * x; });
    set_part(r, 2, [&](double x, int64_t, int64_t) { return -size + 0.01 * x; });
    compare<T>(checks, name + "lse near -100 ", r, bound);
  }
  {  // equal keys: the softmax is flat
    TokenReference r = random_tokens<T>(s);
    const TokenReference first = r;
    set_part(r, 2, [&](double, int64_t, int64_t i) { return first.proj[at(2 * s.channels() + i % head_size)]; });
    compare<T>(checks, name + "equal keys ", r, bound);
  }
  {  // one key with a score of about +80, in the middle
    TokenReference r = random_tokens<T>(s);
    const double size = std::sqrt(80.0 / root);
    set_part(r, 1, [&](double x, int64_t, int64_t) { return size + 0.05 * x; });
    set_part(r, 2, [&](double x, int64_t t, int64_t) { return t == 100 ? size : x; });
    compare<T>(checks, name + "one +80 score ", r, bound);
  }
  {  // zero queries
    TokenReference r = random_tokens<T>(s);
    set_part(r, 1, [](double, int64_t, int64_t) { return 0.0; });
    compare<T>(checks, name + "zero queries ", r, bound);
  }
}

void rotation_case(Checks& checks, const RatShape& s) {
  const TokenReference r = random_tokens<bf16>(s);
  Tokens<bf16> tokens(r);
  Doubles expected = r.proj;
  rotate_rows(expected, r, 1.0);
  require(rotate({tokens.proj.get() + s.channels(), r.width(), s.batch, s.tokens, 2 * s.heads, s.head_size,
                  tokens.rope.get()},
                 nullptr));
  require(cudaDeviceSynchronize(), "rotate");
  const Doubles got = tokens.proj.values();
  checks.within("rotate " + describe_tokens(s), without_padding(got, r.width()), without_padding(expected, r.width()), 3e-3);
  checks.that("rotate " + describe_tokens(s) + "leaves other columns alone", padding_untouched(got, r.width()));
}

// Token by token from an empty cache of type C, over the ring of a window.
template <class C>
void decode_case(Checks& checks, const RatShape& s, int splits, bool positions) {
  std::mt19937_64 random(static_cast<uint64_t>(s.tokens + splits));
  TokenReference r;
  r.s = s;
  r.proj = random_values<bf16>(s.rows() * r.width(), random);
  r.grad_y.assign(at(s.rows() * s.channels()), 0.0);
  const int64_t W = r.width(), D = s.channels(), rows = s.window < 0 ? s.tokens : std::min(s.tokens, s.window + 1);
  const Device<bf16> proj(poisoned_padding(r.proj, W)), step(s.batch * W);
  Device<bf16> y(s.batch * D);
  if (positions) rotate_rows(r.proj, r, 1.0);
  r.run();
  RatShape one = s;
  one.tokens = 1;
  const Device<C> keys(s.batch * D * rows), values(keys.count());
  const Device<ushort2> scales(s.batch * s.heads * rows);
  const Device<float2> rope(s.tokens * (s.head_size / 2));
  const Device<int32_t> position(Doubles{0.0});
  require(rope_table(rope.get(), s.tokens, s.head_size, 10000.0, nullptr));
  const Device<float> workspace(static_cast<int64_t>(rat_decode_workspace(one, splits) / sizeof(float)));
  require(cudaMemset(workspace.get(), 0, workspace.bytes()), "workspace");
  RatDecodeArgs<bf16, C> args;
  args.shape = one, args.capacity = rows, args.angles = s.tokens, args.position = position.get();
  args.proj = step.get(), args.proj_stride = W, args.rope = positions ? rope.get() : nullptr;
  args.keys = head_major(keys.get(), one, rows), args.values = head_major(values.get(), one, rows);
  args.scales = scale_pairs(scales.get(), one, rows);
  args.y = y.get(), args.splits = splits, args.keys_of_split = 1, args.workspace = workspace.get();
  const std::size_t row = static_cast<std::size_t>(W) * sizeof(bf16);
  Doubles all(at(s.rows() * D));
  const auto decode = [&](int64_t t) {
    require(cudaMemcpy2D(step.get(), row, proj.get() + t * W, row * at(s.tokens), row, at(s.batch),
                         cudaMemcpyDeviceToDevice),
            "one token");
    y.poison();
    require(rat_decode<bf16, C>(args, nullptr));
    require(advance_position(position.get(), nullptr));
    return y.values();
  };
  for (int64_t t = 0; t < s.tokens; ++t) {
    const Doubles now = decode(t);
    for (int64_t b = 0; b < s.batch; ++b)
      std::copy_n(now.begin() + b * D, D, all.begin() + (b * s.tokens + t) * D);
  }
  const bool exact = std::is_same_v<C, bf16>;
  const std::string name = std::string("decode tokens ") + (exact ? "bf16 " : "e4m3 ") + describe_tokens(s) + " splits " +
                           std::to_string(splits) + (positions ? " rope" : "");
  checks.within(name, all, r.y, exact ? kBf16 : kE4m3);
  if (!positions) return;
  const Doubles beyond = decode(s.tokens - 1);  // behind the last angle
  checks.that(name + ": NaN behind the angles",
              std::all_of(beyond.begin(), beyond.end(), [](double x) { return std::isnan(x); }));
}

void decode_cases(Checks& checks) {
  for (const int splits : {1, 2, 5})
    for (const bool positions : {true, false})
      for (const int64_t window : {-1, 0, 1, 30, 1000}) {
        decode_case<bf16>(checks, attention_shape(2, 75, 3, 64, window), splits, positions);
        decode_case<bf16>(checks, attention_shape(1, 140, 2, 128, window), splits, positions);
        decode_case<e4m3>(checks, attention_shape(2, 75, 3, 64, window), splits, positions);
        decode_case<e4m3>(checks, attention_shape(1, 140, 2, 128, window), splits, positions);
      }
}

}  // namespace

void test_tokens(Checks& checks) {
  for (const int64_t P : {8, 32, 64, 128, 256})
    for (const int64_t window : {-1, 0, 7}) random_case<float>(checks, 2, 37, 2, P, window, kF32);
  for (const int64_t P : {64, 128}) {
    for (const int64_t T : {1, 63, 64, 65, 127, 128, 129}) random_case<bf16>(checks, 2, T, 2, P, -1, kBf16);
    for (const int64_t window : {-1, 0, 1, 5, 63, 64, 65, 130, 1000}) random_case<bf16>(checks, 1, 300, 2, P, window, kBf16);
    for (const int64_t T : {1, 64, 129}) random_case<bf16>(checks, 2, T, 3, P, 20, kBf16);
    random_case<bf16>(checks, 1, 700, 1, P, 200, kBf16);
  }
  rotation_case(checks, attention_shape(2, 1, 1, 64, -1));
  rotation_case(checks, attention_shape(2, 77, 3, 128, -1));
  rotation_case(checks, attention_shape(1, 300, 2, 64, -1));
  decode_cases(checks);
}

void test_hostile_tokens(Checks& checks) {
  for (const int64_t window : {-1, 70}) {
    adversarial_case<float>(checks, 32, window, kHostileF32);
    adversarial_case<bf16>(checks, 64, window, kHostileBf16);
    adversarial_case<bf16>(checks, 128, window, kHostileBf16);
  }
}

void test_few_tokens(Checks& checks) {
  random_case<float>(checks, 1, 21, 2, 16, 5, kF32);
  random_case<bf16>(checks, 1, 150, 1, 64, 40, kBf16);
  random_case<bf16>(checks, 1, 150, 1, 128, 70, kBf16);
  rotation_case(checks, attention_shape(1, 9, 2, 64, -1));
  decode_case<bf16>(checks, attention_shape(1, 20, 2, 64, 7), 2, true);
  decode_case<e4m3>(checks, attention_shape(2, 12, 2, 128, -1), 2, true);
}

void test_token_determinism(Checks& checks, int runs) {
  for (const auto& [P, window] : {std::pair<int64_t, int64_t>{64, -1}, {128, -1}, {64, 300}, {128, 300}}) {
    const TokenReference r = random_tokens<bf16>(attention_shape(2, 1500, 4, P, window));
    Tokens<bf16> tokens(r);
    for (const AttentionPath path : kPaths) {
      if (!path_problem<bf16>(path, P).empty()) continue;
      std::vector<unsigned char> first_y, first_grad;
      int equal = 0;
      for (int run = 0; run < runs; ++run) {
        tokens.y.poison(), tokens.grad_proj.poison();
        tokens.forward(path);
        tokens.backward(path, true);
        const auto y = tokens.y.raw(), grad = tokens.grad_proj.raw();
        if (run == 0) first_y = y, first_grad = grad;
        if (y == first_y && grad == first_grad) ++equal;
      }
      checks.that(describe_tokens(r.s) + "bit-equal in " + std::to_string(runs) + " runs: " + path_name(path), equal == runs);
    }
  }
}

}  // namespace rat::cuda_test
