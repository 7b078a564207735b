#include "tests/core/fusing_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/attention_layer/attention_layer.h"
#include "kernels/rat_layer/rat_layer.h"
#include "kernels/rattention_layer/rattention_layer.h"
#include "kernels/rnn_layer/rnn_layer.h"

namespace rat::test {

float widen(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

uint16_t narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

namespace {

// e4m3: sign, 4 bits of exponent above -7, 3 of significand; all ones is NaN.
double widen_e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, significand = code & 7;
  if ((code & 0x7f) == 0x7f) return std::nan("");
  const double size = exponent == 0 ? std::ldexp(significand, -9) : std::ldexp(8 + significand, exponent - 10);
  return code & 0x80 ? -size : size;
}

// The nearest of all values.
uint8_t narrow_e4m3(double value) {
  static const std::vector<double> values = [] {
    std::vector<double> all;
    for (int code = 0; code < 127; ++code) all.push_back(widen_e4m3(static_cast<uint8_t>(code)));
    return all;
  }();
  const auto above = std::lower_bound(values.begin(), values.end(), std::abs(value));
  auto code = static_cast<uint8_t>(std::min<std::ptrdiff_t>(above - values.begin(), 126));
  if (code > 0 && std::abs(value) - values[code - 1u] < values[code] - std::abs(value)) --code;
  return value < 0 ? code | 0x80 : code;
}

// Row j of head h of sequence b of a cache's keys, or of its values.
class CacheRow {
 public:
  CacheRow(const kernels::LayerCache& cache, const kernels::LayerStepShape& s, bool of_keys, int64_t b, int64_t h,
           int64_t j)
      : data_(of_keys ? cache.keys : cache.values), size_(s.head_size) {
    const int64_t row = (b * s.cached_heads() + h) * cache.capacity + j;
    first_ = row * s.head_size;
    if (cache.dtype == kernels::CacheDtype::fp8) scale_ = cache.scales + 2 * row + (of_keys ? 0 : 1);
  }
  double get(int64_t i) const {
    if (scale_ == nullptr) return static_cast<double>(widen(static_cast<uint16_t*>(data_)[first_ + i]));
    return widen_e4m3(static_cast<uint8_t*>(data_)[first_ + i]) * static_cast<double>(widen(*scale_));
  }
  void set(const std::vector<double>& values) {
    double top = 0, scale = std::ldexp(1.0, -126);
    for (const double value : values) top = std::max(top, std::abs(value));
    while (top > 448 * scale) scale *= 2;
    if (scale_ != nullptr) *scale_ = narrow(static_cast<float>(scale));
    for (int64_t i = 0; i < size_; ++i) {
      const double value = values[static_cast<std::size_t>(i)];
      if (scale_ != nullptr)
        static_cast<uint8_t*>(data_)[first_ + i] = narrow_e4m3(value / scale);
      else
        static_cast<uint16_t*>(data_)[first_ + i] = narrow(static_cast<float>(value));
    }
  }

 private:
  void* data_;
  int64_t size_, first_ = 0;
  uint16_t* scale_ = nullptr;
};

// out (rows) = matrix (rows, x.size()) x
std::vector<double> times(const uint16_t* matrix, int64_t rows, const std::vector<double>& x) {
  std::vector<double> out(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < out.size(); ++i)
    for (std::size_t j = 0; j < x.size(); ++j) out[i] += static_cast<double>(widen(matrix[i * x.size() + j])) * x[j];
  return out;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Channel i of a head turned by chunk, or token, c: halves, not neighbouring pairs.
double rotated(const double* head, int64_t i, int64_t c, const kernels::LayerStepShape& s) {
  if (s.rope_base == 0) return head[i];
  const int64_t half = s.head_size / 2, j = i % half;
  const double angle =
      static_cast<double>(c) * std::pow(s.rope_base, -2.0 * static_cast<double>(j) / static_cast<double>(s.head_size));
  return i < half ? head[i] * std::cos(angle) - head[i + half] * std::sin(angle)
                  : head[i] * std::cos(angle) + head[i - half] * std::sin(angle);
}

// Where a projected row has the parts of head h: z, v, g, q, k of RAT; v, q, k of attention over tokens; o, q, k, v, g
// of RAT+.
struct Columns {
  int64_t query, key, value, gate;
  Columns(const kernels::LayerStepShape& s, int64_t h) {
    const int64_t P = s.head_size, D = s.channels(), KV = s.cached_heads() * P;
    const int64_t shared = h % (s.groups > 0 ? s.groups : s.cached_heads()) * P;
    if (s.groups > 0)
      query = 3 * D + shared, key = query + s.groups * P, value = D + h * P, gate = 2 * D + h * P;
    else if (s.recurrent)
      query = D + h * P, key = query + D, value = key + D, gate = value + D;
    else
      query = KV + h * P, key = KV + D + shared, value = shared, gate = 0;
  }
  static int64_t all(const kernels::LayerStepShape& s) {
    const int64_t D = s.channels();
    if (s.groups > 0 || s.rnn) return 3 * D + 2 * s.groups * s.head_size;
    return s.recurrent ? 5 * D : D + 2 * s.cached_heads() * s.head_size;
  }
};

// The running key and value of a head take a token in.
void run_states(const kernels::LayerStepArgs& a, const std::vector<double>& proj, int64_t b, int64_t h,
                std::vector<double>& key, std::vector<double>& value) {
  const kernels::LayerStepShape& s = a.shape;
  const int64_t P = s.head_size, D = s.channels();
  const bool fresh = s.recurrent ? *a.cache.position == 0 : *a.cache.position % s.chunk_len == 0;
  for (int64_t i = 0; i < P; ++i) {
    const int64_t at = h * P + i;
    const double bias = s.recurrent ? 0 : static_cast<double>(a.gate_bias[static_cast<std::size_t>(at)]);
    const double gate = sigmoid(proj[static_cast<std::size_t>(Columns(s, h).gate + i)] + bias);
    const auto next = [&](float& state, double input) {
      const double before = fresh ? 0 : static_cast<double>(state);
      return static_cast<double>(state = static_cast<float>(gate * before + (1 - gate) * input));
    };
    const auto c = static_cast<std::size_t>(i);
    key[c] = next(a.cache.state_k[b * D + at], key[c]);
    value[c] = next(a.cache.state_v[b * D + at], value[c]);
  }
}

// Rows of the cache that a step at `position` reads.
std::vector<int64_t> rows_seen(const kernels::LayerStepShape& s, int64_t position) {
  std::vector<int64_t> rows;
  const int64_t first = s.window < 0 ? 0 : std::max<int64_t>(0, position - s.window);
  for (int64_t j = first; j < position / s.chunk_len; ++j) rows.push_back(s.window < 0 ? j : j % (s.window + 1));
  if (s.dilation > 0)
    for (int64_t j = 0; j < kernels::kept_tokens(std::max<int64_t>(0, position - s.window), s.dilation, s.initial); ++j)
      rows.push_back(s.window + 1 + j);
  return rows;
}

// Rows that the token or chunk at `position` takes.
std::vector<int64_t> rows_taken(const kernels::LayerStepShape& s, int64_t position) {
  const int64_t c = position / s.chunk_len;
  if (position % s.chunk_len != s.chunk_len - 1) return {};
  std::vector<int64_t> rows{s.window < 0 ? c : c % (s.window + 1)};
  if (s.dilation > 0) {
    const int64_t before = kernels::kept_tokens(c, s.dilation, s.initial);
    if (kernels::kept_tokens(c + 1, s.dilation, s.initial) > before) rows.push_back(s.window + 1 + before);
  }
  return rows;
}

// One head of one sequence, of a projected row.
void step_head(const kernels::LayerStepArgs& a, const std::vector<double>& proj, int64_t b, int64_t h, double* y) {
  const kernels::LayerStepShape& s = a.shape;
  const int64_t P = s.head_size, position = *a.cache.position, c = position / s.chunk_len;
  const Columns columns(s, h);
  const double *q = proj.data() + columns.query, *k = proj.data() + columns.key, *v = proj.data() + columns.value;
  std::vector<double> key(k, k + P), value(v, v + P);
  if (s.states() > 0) run_states(a, proj, b, h, key, value);
  double own = 0;
  for (int64_t i = 0; i < P; ++i) own += q[i] * key[static_cast<std::size_t>(i)];
  const auto row = [&](bool of_keys, int64_t j) { return CacheRow(a.cache, s, of_keys, b, h % s.cached_heads(), j); };
  std::vector<double> weights{std::exp(own / std::sqrt(static_cast<double>(P)))};
  double sum = weights[0];
  const std::vector<int64_t> seen = rows_seen(s, position);
  for (const int64_t j : seen) {
    double score = 0;
    for (int64_t i = 0; i < P; ++i) score += rotated(q, i, c, s) * row(true, j).get(i);
    weights.push_back(std::exp(score / std::sqrt(static_cast<double>(P))));
    sum += weights.back();
  }
  for (int64_t i = 0; i < P; ++i) {
    y[i] = weights[0] * value[static_cast<std::size_t>(i)];
    for (std::size_t j = 0; j < seen.size(); ++j) y[i] += weights[j + 1] * row(false, seen[j]).get(i);
    y[i] *= (s.states() > 0 ? sigmoid(proj[static_cast<std::size_t>(h * P + i)]) : 1) / sum;
  }
  std::vector<double> turned(key.size());
  for (int64_t i = 0; i < P; ++i) turned[static_cast<std::size_t>(i)] = rotated(key.data(), i, c, s);
  for (const int64_t to : rows_taken(s, position)) {
    row(true, to).set(turned);
    row(false, to).set(value);
  }
}

// softmax(x), then softmax(-x), of a head.
std::vector<double> features(const double* head, int64_t P) {
  std::vector<double> phi(static_cast<std::size_t>(2 * P));
  for (const int64_t half : {0, 1}) {
    double sum = 0;
    for (int64_t i = 0; i < P; ++i)
      sum += phi[static_cast<std::size_t>(half * P + i)] = std::exp(half == 0 ? head[i] : -head[i]);
    for (int64_t i = 0; i < P; ++i) phi[static_cast<std::size_t>(half * P + i)] /= sum;
  }
  return phi;
}

// Linear attention: the token that joins the sums of a head of the cache, rotated back where it comes from the window.
void join_sums(const kernels::LayerStepArgs& a, const std::vector<double>& proj, int64_t b, int64_t g) {
  const kernels::LayerStepShape& s = a.shape;
  const int64_t P = s.head_size, joins = *a.cache.position - std::max<int64_t>(0, s.window);
  if (joins < 0) return;
  const double *k = proj.data() + Columns(s, g).key, *v = proj.data() + Columns(s, g).value;
  std::vector<double> key(k, k + P), value(v, v + P);
  if (s.keeps_rows()) {
    std::vector<double> kept(key.size());
    for (int64_t i = 0; i < P; ++i) {
      kept[static_cast<std::size_t>(i)] = CacheRow(a.cache, s, true, b, g, joins % (s.window + 1)).get(i);
      value[static_cast<std::size_t>(i)] = CacheRow(a.cache, s, false, b, g, joins % (s.window + 1)).get(i);
    }
    for (int64_t i = 0; i < P; ++i) key[static_cast<std::size_t>(i)] = rotated(kept.data(), i, -joins, s);
  }
  const std::vector<double> phi = features(key.data(), P);
  float* const sums = a.cache.sums + (b * s.cached_heads() + g) * 2 * P * P;
  for (int64_t f = 0; f < 2 * P; ++f)
    for (int64_t i = 0; i < P; ++i)
      sums[f * P + i] += static_cast<float>(phi[static_cast<std::size_t>(f)] * value[static_cast<std::size_t>(i)]);
}

// n(x) w of a head.
void add_normed(const std::vector<double>& x, std::span<const float> weight, double* y) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  for (std::size_t i = 0; i < x.size(); ++i)
    y[i] += x[i] / std::sqrt(squares / static_cast<double>(x.size()) + 1e-8) * static_cast<double>(weight[i]);
}

// What RAttention, or linear attention alone, makes of a head whose window's result is in y.
void add_linear(const kernels::LayerStepArgs& a, const std::vector<double>& proj, int64_t b, int64_t h, double* y) {
  const kernels::LayerStepShape& s = a.shape;
  const int64_t P = s.head_size;
  const auto head = [&](std::span<const float> norm) {
    return norm.subspan(static_cast<std::size_t>(h * P), static_cast<std::size_t>(P));
  };
  const std::vector<double> near(y, y + P), phi = features(proj.data() + Columns(s, h).query, P);
  const float* const sums = a.cache.sums + (b * s.cached_heads() + h % s.cached_heads()) * 2 * P * P;
  std::vector<double> far(near.size());
  for (int64_t f = 0; f < 2 * P; ++f)
    for (int64_t i = 0; i < P; ++i)
      far[static_cast<std::size_t>(i)] += phi[static_cast<std::size_t>(f)] * static_cast<double>(sums[f * P + i]);
  std::fill_n(y, P, 0.0);
  if (s.keeps_rows()) add_normed(near, head(a.near_norm), y);
  add_normed(far, head(a.far_norm), y);
}

// A layer of an RNN between its projections.
void run_rnn(const kernels::LayerStepArgs& a, const std::vector<double>& proj, int64_t b, std::vector<double>& y) {
  const std::size_t D = y.size();
  for (std::size_t i = 0; i < D; ++i) {
    float& state = a.cache.state_v[static_cast<std::size_t>(b) * D + i];
    const double gate = sigmoid(proj[2 * D + i] + static_cast<double>(a.gate_bias[i]));
    const double before = *a.cache.position == 0 ? 0 : static_cast<double>(state);
    state = static_cast<float>(gate * before + (1 - gate) * proj[D + i]);
    y[i] = sigmoid(proj[i]) * static_cast<double>(state);
  }
}

Status step(const kernels::LayerStepArgs& a) {
  const kernels::LayerStepShape& s = a.shape;
  const int64_t D = s.channels();
  EXPECT_GE(a.cache.capacity, s.rows_at(*a.cache.position)) << "no room";
  EXPECT_GT(a.cache.angles, *a.cache.position / s.chunk_len) << "no angle";
  if (s.window >= 0 && s.dilation == 0) {
    EXPECT_LE(a.cache.capacity, s.window + 1) << "more than a window keeps";
  }
  EXPECT_EQ(*static_cast<const int32_t*>(a.cache.workspace), 0);
  for (int64_t b = 0; b < s.batch; ++b) {
    double squares = 0;
    for (int64_t d = 0; d < D; ++d) squares += std::pow(static_cast<double>(a.x.row(b)[d]), 2);
    std::vector<double> normed, y(static_cast<std::size_t>(D));
    for (int64_t d = 0; d < D; ++d)
      normed.push_back(static_cast<double>(a.x.row(b)[d]) * static_cast<double>(a.norm[static_cast<std::size_t>(d)]) /
                       std::sqrt(squares / static_cast<double>(D) + 1e-6));
    const auto proj = times(a.in_proj, Columns::all(s), normed);
    if (s.rnn) run_rnn(a, proj, b, y);
    const auto join = [&] {
      for (int64_t g = 0; g < s.cached_heads(); ++g) join_sums(a, proj, b, g);
    };
    if (s.keeps_rows())
      for (int64_t h = 0; h < s.heads; ++h) step_head(a, proj, b, h, y.data() + h * s.head_size);
    if (s.linear && !s.keeps_rows()) join();
    if (s.linear)
      for (int64_t h = 0; h < s.heads; ++h) add_linear(a, proj, b, h, y.data() + h * s.head_size);
    if (s.linear && s.keeps_rows()) join();
    const auto out = times(a.out_proj, D, y);
    for (int64_t d = 0; d < D; ++d)
      a.y.row(b)[d] =
          static_cast<float>(out[static_cast<std::size_t>(d)] + (a.residual ? static_cast<double>(a.x.row(b)[d]) : 0));
  }
  ++*a.cache.position;
  return ok();
}

// Prefill is the steps of its tokens.
template <class Args>
Status whole(const Args& a) {
  const int64_t T = a.shape.tokens, D = a.shape.channels();
  EXPECT_EQ(*a.cache.position, 0);
  for (int64_t t = 0; t < T; ++t) {
    kernels::LayerStepArgs one{.shape = a.shape.step(),
                               .norm = a.norm,
                               .gate_bias = {},
                               .in_proj = a.in_proj,
                               .out_proj = a.out_proj,
                               .x = {},
                               .y = {},
                               .residual = a.residual,
                               .cache = a.cache};
    if constexpr (requires { a.gate_bias; }) one.gate_bias = a.gate_bias;
    if constexpr (std::is_same_v<Args, kernels::RattentionLayerArgs>)
      one.near_norm = a.near_norm, one.far_norm = a.far_norm;
    one.x = {a.x.row(t), a.shape.batch, D, T * D};
    one.y = {a.y.row(t), a.shape.batch, D, T * D};
    RAT_TRY(step(one));
  }
  return ok();
}

}  // namespace

const kernels::Backend& fusing_backend() {
  static const kernels::Backend backend = [] {
    kernels::Backend fusing = kernels::cpu_backend();
    fusing.fuses_rat_layer = [](const kernels::RatLayerShape&) { return true; };
    fusing.rat_layer_saved = [](const kernels::RatLayerShape&) { return std::size_t{64}; };
    fusing.rat_layer = whole<kernels::RatLayerArgs>;
    fusing.fuses_attention_layer = [](const kernels::AttentionLayerShape&) { return true; };
    fusing.attention_layer_saved = [](const kernels::AttentionLayerShape&) { return std::size_t{64}; };
    fusing.attention_layer = whole<kernels::AttentionLayerArgs>;
    fusing.fuses_rnn_layer = [](const kernels::RnnLayerShape&) { return true; };
    fusing.rnn_layer_saved = [](const kernels::RnnLayerShape&) { return std::size_t{64}; };
    fusing.rnn_layer = whole<kernels::RnnLayerArgs>;
    fusing.fuses_rattention_layer = [](const kernels::RattentionLayerShape&) { return true; };
    fusing.rattention_layer_saved = [](const kernels::RattentionLayerShape&) { return std::size_t{64}; };
    fusing.rattention_layer = whole<kernels::RattentionLayerArgs>;
    fusing.layer_step_workspace = [](const kernels::LayerStepShape&, int64_t) { return std::size_t{64}; };
    fusing.layer_step = step;
    return fusing;
  }();
  return backend;
}

}  // namespace rat::test
