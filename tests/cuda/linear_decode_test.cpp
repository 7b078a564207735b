// Linear attention token by token, with a window's result and alone, against float64: results and sums.
#include "kernels/cuda/linear_decode.h"

#include "kernels/cuda/attention_layer.h"
#include "kernels/cuda/chunk_scan.h"
#include "kernels/cuda/rat_decode.h"
#include "tests/cuda/suites.h"
#include "tests/cuda/token_reference.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

constexpr double kBound = 4e-3, kSumBound = 1e-5;  // results are rounded to bf16

struct StepReference {
  RatShape s;
  int64_t kv;
  Doubles near_norm, far_norm, sums;  // (D), (D), (B, KV / P, 2 P, P)

  int64_t width() const { return s.channels() + 2 * kv * s.head_size; }
  bool has_window() const { return s.window >= 0; }

  // From a token's rows (B, W), the window's result and the row of the cache that joins, rotated back: (B, KV) each.
  Doubles step(const Doubles& proj, const Doubles& near, const Doubles& key, const Doubles& value, bool joins) {
    const int64_t P = s.head_size, D = s.channels();
    Doubles y(at(s.batch * D), 0.0);
    if (!has_window()) join(key, value);
    for (int64_t b = 0; b < s.batch; ++b)
      for (int64_t h = 0; h < s.heads; ++h) {
        const Doubles phi = features(proj, b * width() + kv * P + h * P);
        Doubles far(at(P), 0.0);
        for (int64_t f = 0; f < 2 * P; ++f)
          for (int64_t i = 0; i < P; ++i) far[at(i)] += phi[at(f)] * sums[at(((b * kv + h % kv) * 2 * P + f) * P + i)];
        add_normed(far, 0, far_norm, h, y, b * D + h * P);
        if (has_window()) add_normed(near, b * D + h * P, near_norm, h, y, b * D + h * P);
      }
    if (has_window() && joins) join(key, value);
    return y;
  }

 private:
  Doubles features(const Doubles& x, int64_t first) const {
    const int64_t P = s.head_size;
    Doubles phi(at(2 * P));
    for (const int64_t half : {0, 1}) {
      double sum = 0.0;
      for (int64_t i = 0; i < P; ++i)
        sum += phi[at(half * P + i)] = std::exp((half == 0 ? 1.0 : -1.0) * x[at(first + i)]);
      for (int64_t i = 0; i < P; ++i) phi[at(half * P + i)] /= sum;
    }
    return phi;
  }
  void join(const Doubles& key, const Doubles& value) {
    const int64_t P = s.head_size;
    for (int64_t g = 0; g < s.batch * kv; ++g) {
      const Doubles phi = features(key, g * P);
      for (int64_t f = 0; f < 2 * P; ++f)
        for (int64_t i = 0; i < P; ++i) sums[at((g * 2 * P + f) * P + i)] += phi[at(f)] * value[at(g * P + i)];
    }
  }
  void add_normed(const Doubles& x, int64_t first, const Doubles& weight, int64_t h, Doubles& y, int64_t to) const {
    const int64_t P = s.head_size;
    double squares = 0.0;
    for (int64_t i = 0; i < P; ++i) squares += x[at(first + i)] * x[at(first + i)] / static_cast<double>(P);
    for (int64_t i = 0; i < P; ++i)
      y[at(to + i)] += x[at(first + i)] / std::sqrt(squares + 1e-8) * weight[at(h * P + i)];
  }
};

// Keys of a token (B, KV) turned by its angles; direction -1 turns back.
Doubles turned(const Doubles& key, int64_t P, int64_t token, double direction) {
  Doubles result = key;
  for (std::size_t first = 0; first < key.size(); first += at(P))
    for (int64_t i = 0; i < P / 2; ++i) {
      const double angle = direction * static_cast<double>(token) *
                           std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(P));
      const double low = key[first + at(i)], high = key[first + at(i + P / 2)];
      result[first + at(i)] = low * std::cos(angle) - high * std::sin(angle);
      result[first + at(i + P / 2)] = high * std::cos(angle) + low * std::sin(angle);
    }
  return result;
}

void step_case(Checks& checks, const RatShape& shape, int64_t kv_heads, bool positions) {
  std::mt19937_64 random(static_cast<uint64_t>(shape.head_size + kv_heads));
  StepReference r{shape, kv_heads, {}, {}, {}};
  const int64_t P = shape.head_size, D = shape.channels(), KV = kv_heads * P, B = shape.batch;
  r.near_norm = random_values<float>(D, random, 0.3, 1.0), r.far_norm = random_values<float>(D, random, 0.3, 1.0);
  r.sums = random_values<float>(B * KV * 2 * P, random, 0.1);
  const int64_t ring = std::max<int64_t>(1, shape.window + 1);
  const Device<float> near_norm(r.near_norm), far_norm(r.far_norm), sums(r.sums);
  Device<bf16> proj(B * r.width()), y(B * D), keys(B * KV * ring), values(B * KV * ring);
  const Device<float2> rope(shape.tokens * (P / 2));
  const Device<int32_t> position(Doubles{0.0});
  require(rope_table(rope.get(), shape.tokens, P, 10000.0, nullptr));
  LinearDecodeArgs a;
  a.shape = shape, a.shape.tokens = 1, a.kv_heads = kv_heads;
  a.position = position.get();
  a.proj = proj.get(), a.sums = sums.get(), a.near_norm = near_norm.get(), a.far_norm = far_norm.get();
  const RatShape cached = of_heads(a.shape, kv_heads);
  a.keys = read_only(head_major(keys.get(), cached, ring)),
  a.values = read_only(head_major(values.get(), cached, ring));
  a.rope = positions ? rope.get() : nullptr;
  a.near = a.y = y.get();
  Doubles kept_keys(at(B * KV * ring), 0.0), kept_values = kept_keys, all, expected;
  for (int64_t t = 0; t < shape.tokens; ++t) {
    const Doubles row = random_values<bf16>(B * r.width(), random, 1.5), near = random_values<bf16>(B * D, random);
    // (B, KV) of the token, and where the ring has a token's part of a head
    const auto part = [&](int64_t column) {
      Doubles out;
      for (int64_t b = 0; b < B; ++b)
        out.insert(out.end(), row.begin() + b * r.width() + column, row.begin() + b * r.width() + column + KV);
      return out;
    };
    const auto slot = [&](int64_t head, int64_t token) { return (head * ring + token % ring) * P; };
    Doubles key = part(KV + D), value = part(0);
    const int64_t joins = t - std::max<int64_t>(0, shape.window);
    if (r.has_window()) {
      const Doubles with_angle = positions ? turned(key, P, t, 1.0) : key;
      for (int64_t head = 0; head < B * kv_heads; ++head)
        for (int64_t i = 0; i < P; ++i) {
          kept_keys[at(slot(head, t) + i)] = rounded<bf16>(with_angle[at(head * P + i)]);
          kept_values[at(slot(head, t) + i)] = value[at(head * P + i)];
        }
      for (int64_t head = 0; head < B * kv_heads && joins >= 0; ++head)
        for (int64_t i = 0; i < P; ++i) {
          key[at(head * P + i)] = kept_keys[at(slot(head, joins) + i)];
          value[at(head * P + i)] = kept_values[at(slot(head, joins) + i)];
        }
      if (positions && joins >= 0) key = turned(key, P, joins, -1.0);
    }
    proj.set(row), y.set(near), keys.set(kept_keys), values.set(kept_values);
    require(linear_decode(a, nullptr));
    require(advance_position(position.get(), nullptr));
    const Doubles got = y.values(), want = r.step(row, near, key, value, joins >= 0);
    all.insert(all.end(), got.begin(), got.end()), expected.insert(expected.end(), want.begin(), want.end());
  }
  const std::string name =
      "linear decode " + describe_tokens(shape) + "kv " + std::to_string(kv_heads) + (positions ? " rope " : " ");
  checks.within(name + "y", all, expected, kBound);
  checks.within(name + "sums", sums.values(), r.sums, kSumBound);
}

void widen_case(Checks& checks) {
  std::mt19937_64 random(3);
  const int64_t B = 3, T = 9, count = 5, columns = 24, stride = 40;
  const Doubles rows = random_values<bf16>(B * T * stride, random);
  const Device<bf16> from(rows);
  const Device<float> to(B * count * columns);
  require(widen_first_tokens({B, T, count, columns, stride, from.get() + 8, to.get()}, nullptr));
  Doubles expected;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t t = 0; t < count; ++t)
      for (int64_t c = 0; c < columns; ++c) expected.push_back(rows[at((b * T + t) * stride + 8 + c)]);
  checks.within("first tokens of every sequence, widened", to.values(), expected, 0.0);
}

}  // namespace

void test_linear_decode(Checks& checks) {
  widen_case(checks);
  for (const int64_t P : {64, 128})
    for (const bool positions : {true, false})
      for (const int64_t window : {-1, 0, 1, 5, 100})
        for (const int64_t kv_heads : {4, 2, 1})
          step_case(checks, attention_shape(3, 12, 4, P, window), kv_heads, positions);
  step_case(checks, attention_shape(1, 8, 32, 64, 3), 1, true);
}

void test_few_linear_decodes(Checks& checks) {
  widen_case(checks);
  step_case(checks, attention_shape(2, 4, 2, 64, 1), 1, true);
  step_case(checks, attention_shape(1, 3, 2, 128, -1), 2, false);
}

}  // namespace rat::cuda_test
