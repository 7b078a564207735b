// The decode cache in e4m3: rows bit for bit against the host's conversion; decoding against float64 attention over the
// very rows in the cache, and against attention over rows that were never rounded; rows that are not finite.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/cache_rows.h"
#include "kernels/cuda/chunk_scan.h"
#include "kernels/cuda/rat_decode.h"
#include "tests/cuda/reference.h"
#include "tests/cuda/suites.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;
using Bytes = std::vector<unsigned char>;

// Against attention over the rows in the cache: y is rounded to bf16 and gates come from the tanh unit. Against exact
// rows: each value is off by up to 2^-4 of itself, 2.6 % in the mean, in keys and in values.
constexpr double kSameRowsBound = 4e-3, kExactRowsBound = 4e-2, kRowBound = 3.5e-2;

std::size_t at(int64_t index) { return static_cast<std::size_t>(index); }

struct Row {
  Bytes codes;
  uint16_t scale;
};

// By the definition in kernels/cuda/quantise.h.
Row quantised(const double* x, int64_t P) {
  double top = 0.0;
  bool finite = true;
  for (int64_t i = 0; i < P; ++i) {
    finite = finite && std::isfinite(x[i]);
    top = std::max(top, std::abs(x[i]));
  }
  if (!finite) return {Bytes(at(P), 0x7f), 0x7fc0};
  int e = -126;
  while (top > std::ldexp(448.0, e)) ++e;
  Row row{{}, float_to_bf16(static_cast<float>(std::ldexp(1.0, e)))};
  for (int64_t i = 0; i < P; ++i)
    row.codes.push_back(__nv_cvt_float_to_fp8(static_cast<float>(std::ldexp(x[i], -e)), __NV_SATFINITE, __NV_E4M3));
  return row;
}

double value_of(unsigned char code) {
  return static_cast<double>(static_cast<float>(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3))));
}

Doubles restored(const Row& row) {
  Doubles values;
  for (const unsigned char code : row.codes) values.push_back(value_of(code) * bf16_to_float(row.scale));
  return values;
}

// A cache of (B, H, capacity) key and value rows on the device.
struct Cache {
  RatShape s;
  int64_t capacity;
  Device<unsigned char> keys, values;
  Device<ushort2> scales;

  Cache(const RatShape& shape, int64_t rows)
      : s(shape), capacity(rows), keys(s.batch * s.channels() * rows), values(keys.count()),
        scales(s.batch * s.heads * rows) {}
  KeyRows<e4m3> key_view() const { return head_major(reinterpret_cast<e4m3*>(keys.get()), s, capacity); }
  KeyRows<e4m3> value_view() const { return head_major(reinterpret_cast<e4m3*>(values.get()), s, capacity); }
  KeyRows<ushort2> scale_view() const { return scale_pairs(scales.get(), s, capacity); }

  // Row j of every head, of the keys or the values: (B*H, P) codes and a scale each.
  std::vector<Row> rows(bool of_keys, int64_t j) const {
    const Bytes codes = of_keys ? keys.raw() : values.raw(), pairs = scales.raw();
    std::vector<Row> all;
    for (int64_t head = 0; head < s.batch * s.heads; ++head) {
      const int64_t row = head * capacity + j;
      const auto first = codes.begin() + row * s.head_size;
      all.push_back({{first, first + s.head_size}, 0});
      std::memcpy(&all.back().scale, pairs.data() + 4 * row + (of_keys ? 0 : 2), 2);
    }
    return all;
  }
};

// Rows of all magnitudes that bf16 has, and each kind that needs care.
Doubles hostile_rows(int64_t rows, int64_t P, std::mt19937_64& random) {
  Doubles all;
  for (int64_t row = 0; row < rows; ++row) {
    Doubles x = random_values<bf16>(P, random, std::ldexp(1.0, static_cast<int>(random() % 240) - 125));
    const std::size_t one = random() % at(P);
    if (row % 9 == 1) std::fill(x.begin(), x.end(), 0.0);
    if (row % 9 == 2) std::fill(x.begin(), x.end(), 0.0), x[one] = std::ldexp(1.0, -133);  // bf16's smallest
    if (row % 9 == 3) x[one] = -bf16_to_float(0x7f7f);                                     // its largest
    if (row % 9 == 4) x = random_values<bf16>(P, random, 0.1), x[one] = 448.0;
    if (row % 9 == 5) x = random_values<bf16>(P, random, 0.1), x[one] = -450.0;
    if (row % 9 == 6) x[one] = INFINITY;
    if (row % 9 == 7) x[one] = -NAN;
    all.insert(all.end(), x.begin(), x.end());
  }
  return all;
}

void rows_case(Checks& checks, int64_t P) {
  const RatShape s{2, 37, 3, P, 1, 2};  // 18 chunk ends in a cache of 21, and half a chunk
  std::mt19937_64 random(static_cast<uint64_t>(P));
  const int64_t chunks = s.full_chunks(), rows = s.batch * s.heads * chunks;
  const Doubles keys = hostile_rows(rows, P, random), values = hostile_rows(rows, P, random);
  const Device<bf16> from_keys(keys), from_values(values);
  const Cache cache(s, chunks + 3);
  require(fill_cache<e4m3>({s, 0, chunks, read_only(head_major(from_keys.get(), s, chunks)),
                            read_only(head_major(from_values.get(), s, chunks)), cache.key_view(), cache.value_view(),
                            cache.scale_view()},
                           nullptr));
  require(cudaDeviceSynchronize(), "fill_cache");
  bool same = true, untouched = true;
  for (int64_t j = 0; j < cache.capacity; ++j)
    for (const bool of_keys : {true, false}) {
      const std::vector<Row> got = cache.rows(of_keys, j);
      for (int64_t head = 0; head < s.batch * s.heads; ++head) {
        const Row& row = got[at(head)];
        if (j >= chunks) {
          untouched = untouched && row.scale == 0xffff && row.codes == Bytes(at(P), 0xff);
          continue;
        }
        const Row want = quantised((of_keys ? keys : values).data() + (head * chunks + j) * P, P);
        same = same && row.scale == want.scale && row.codes == want.codes;
      }
    }
  checks.that("rows in e4m3 as the host makes them, P " + std::to_string(P), same);
  checks.that("rows behind them untouched, P " + std::to_string(P), untouched);
}

// Steps of all tokens of `reference.proj` from an empty cache of type C.
template <class C>
struct Decoding {
  RatShape s, one;
  int64_t capacity;
  Device<bf16> proj, step, y;
  Device<float> bias, state_k, state_v, workspace;
  Device<float2> rope;
  Device<int32_t> position;
  RatDecodeArgs<bf16, C> args;

  Decoding(const CoreReference& reference, int splits, int64_t rows)
      : s(reference.shape), one(one_token(s)), capacity(rows), proj(reference.proj), step(s.batch * s.proj_width()),
        y(s.batch * s.channels()), bias(reference.gate_bias), state_k(s.batch * s.channels()), state_v(state_k.count()),
        workspace(static_cast<int64_t>(rat_decode_workspace(one, splits) / sizeof(float))),
        rope((rows + 1) * (s.head_size / 2)), position(Doubles{0.0}) {
    require(rope_table(rope.get(), rows + 1, s.head_size, 10000.0, nullptr));
    require(cudaMemset(workspace.get(), 0, workspace.bytes()), "workspace");
    args.shape = one, args.capacity = rows, args.angles = rows + 1, args.position = position.get();
    args.proj = step.get(), args.proj_stride = s.proj_width(), args.gate_bias = bias.get();
    args.rope = reference.positions ? rope.get() : nullptr;
    args.state_k = state_k.get(), args.state_v = state_v.get();
    args.y = y.get(), args.splits = splits, args.keys_of_split = 1, args.workspace = workspace.get();
  }
  static RatShape one_token(RatShape shape) {
    shape.tokens = 1;
    return shape;
  }

  // y (B*T, D), every element written by its step.
  Doubles run() {
    const int64_t W = s.proj_width(), D = s.channels();
    const std::size_t row = static_cast<std::size_t>(W) * sizeof(bf16);
    Doubles all(at(s.rows() * D));
    position.set({0.0});
    for (int64_t t = 0; t < s.tokens; ++t) {
      require(cudaMemcpy2D(step.get(), row, proj.get() + t * W, row * at(s.tokens), row, at(s.batch),
                           cudaMemcpyDeviceToDevice),
              "one token");
      y.poison();
      require(rat_decode<bf16, C>(args, nullptr));
      require(advance_position(position.get(), nullptr));
      const Doubles now = y.values();
      for (int64_t b = 0; b < s.batch; ++b)
        std::copy_n(now.begin() + b * D, D, all.begin() + (b * s.tokens + t) * D);
    }
    return all;
  }
};

CoreReference random_core(const RatShape& s, bool positions, uint64_t seed) {
  std::mt19937_64 random(seed);
  CoreReference reference;
  reference.shape = s;
  reference.positions = positions;
  reference.proj = random_values<bf16>(s.rows() * s.proj_width(), random);
  reference.gate_bias = random_values<float>(s.channels(), random);
  return reference;
}

// How far the cached rows are from the exact ones, in units of what rounding allows; and the cached rows as numbers.
double worst_row(const Cache& cache, bool of_keys, const AttentionReference& exact, Doubles& kept) {
  const RatShape& s = exact.shape;
  const Doubles& wanted = of_keys ? exact.keys : exact.values;
  kept.assign(wanted.size(), 0.0);
  double worst = 0.0;
  for (int64_t j = 0; j < s.full_chunks(); ++j) {
    const std::vector<Row> rows = cache.rows(of_keys, j);
    for (int64_t head = 0; head < s.batch * s.heads; ++head) {
      const std::size_t first = exact.key_at(head / s.heads, head % s.heads, j);
      const Doubles row = restored(rows[at(head)]);
      double top = 0.0;
      for (std::size_t i = 0; i < row.size(); ++i) top = std::max(top, std::abs(wanted[first + i]));
      for (std::size_t i = 0; i < row.size(); ++i) {
        kept[first + i] = row[i];
        const double error = std::abs(row[i] - wanted[first + i]) / (std::abs(wanted[first + i]) / 16 + 0.01 * top);
        if (std::isnan(error)) return error;
        worst = std::max(worst, error);
      }
    }
  }
  return worst;
}

void decode_case(Checks& checks, const RatShape& s, int splits, bool positions) {
  CoreReference reference = random_core(s, positions, static_cast<uint64_t>(s.tokens * 7 + splits));
  reference.forward();
  const Cache cache(s, s.full_chunks() + 1);
  Decoding<e4m3> decoding(reference, splits, cache.capacity);
  decoding.args.keys = cache.key_view(), decoding.args.values = cache.value_view();
  decoding.args.scales = cache.scale_view();
  const Doubles y = decoding.run();
  const std::string name = "decode from e4m3 B" + std::to_string(s.batch) + " T" + std::to_string(s.tokens) + " P" +
                           std::to_string(s.head_size) + " G" + std::to_string(s.groups) + " L" +
                           std::to_string(s.chunk_len) + " splits " + std::to_string(splits) + " ";
  AttentionReference kept = reference.attention;
  checks.within(name + "a key", worst_row(cache, true, reference.attention, kept.keys), 1.0);
  checks.within(name + "a value", worst_row(cache, false, reference.attention, kept.values), 1.0);
  if (s.full_chunks() > 0) {
    checks.within(name + "keys", kept.keys, reference.attention.keys, kRowBound);
    checks.within(name + "values", kept.values, reference.attention.values, kRowBound);
  }
  kept.forward();
  checks.within(name + "y over the same rows", y, kept.y, kSameRowsBound);
  checks.within(name + "y over exact rows", y, reference.attention.y, kExactRowsBound);
  const Bytes codes = cache.keys.raw();
  checks.that(name + "the same again", decoding.run() == y && cache.keys.raw() == codes);
}

// All of head h of sequence b from token `first` on is NaN, and nothing else is.
template <class C>
void not_finite_case(Checks& checks, const char* what, int64_t column, double poison, int64_t only_head, int splits) {
  const RatShape s{2, 70, 4, 64, 2, 2};
  CoreReference reference = random_core(s, true, 3);
  const int64_t sequence = 1, D = s.channels(), P = s.head_size;
  reference.proj[at((sequence * s.tokens + 1) * s.proj_width() + column)] = poison;  // at the end of the first chunk
  const Cache cache(s, s.full_chunks() + 1);
  const Device<bf16> keys(s.batch * D * cache.capacity), values(keys.count());
  Decoding<C> decoding(reference, splits, cache.capacity);
  if constexpr (std::is_same_v<C, e4m3>) {
    decoding.args.keys = cache.key_view(), decoding.args.values = cache.value_view();
    decoding.args.scales = cache.scale_view();
  } else {
    decoding.args.keys = head_major(keys.get(), s, cache.capacity);
    decoding.args.values = head_major(values.get(), s, cache.capacity);
  }
  const Doubles y = decoding.run();
  bool seen = true, alone = true;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t t = 0; t < s.tokens; ++t)
      for (int64_t i = 0; i < D; ++i) {
        const int64_t h = i / P;
        const bool hit = b == sequence && (only_head < 0 ? h % s.groups == 0 : h == only_head);
        const double value = y[at((b * s.tokens + t) * D + i)];
        if (hit && t >= s.chunk_len) seen = seen && std::isnan(value);
        if (!hit || t == 0) alone = alone && std::isfinite(value);
      }
  const std::string name = std::string(what) + (std::is_same_v<C, e4m3> ? ", e4m3" : ", bf16") + ", splits " +
                           std::to_string(splits);
  checks.that(name + ": is NaN ever after", seen);
  checks.that(name + ": touches nothing else", alone);
}

}  // namespace

void test_quantised_cache(Checks& checks) {
  for (const int64_t P : {16, 32, 64, 128, 256}) rows_case(checks, P);
  for (const int splits : {1, 2, 5}) {
    decode_case(checks, {3, 150, 4, 128, 2, 2}, splits, true);
    decode_case(checks, {1, 90, 2, 64, 1, 1}, splits, false);
    decode_case(checks, {2, 75, 4, 64, 4, 7}, splits, true);  // the last chunk is short
    decode_case(checks, {2, 40, 2, 32, 1, 3}, splits, true);
    decode_case(checks, {1, 40, 3, 16, 3, 4}, splits, true);
    decode_case(checks, {1, 30, 2, 256, 1, 3}, splits, true);
    decode_case(checks, {2, 20, 2, 128, 1, 64}, splits, true);  // never a chunk end
    const RatShape s{2, 70, 4, 64, 2, 2};
    not_finite_case<e4m3>(checks, "a key of NaN", s.key_column() + 5, NAN, -1, splits);
    not_finite_case<bf16>(checks, "a key of NaN", s.key_column() + 5, NAN, -1, splits);
    not_finite_case<e4m3>(checks, "an infinite value", s.value_column() + 3 * 64 + 9, -INFINITY, 3, splits);
  }
  decode_case(checks, {1, 700, 2, 128, 2, 1}, 16, true);
}

void test_few_quantised_rows(Checks& checks) {
  rows_case(checks, 64);
  decode_case(checks, {1, 12, 2, 128, 1, 2}, 2, true);
}

}  // namespace rat::cuda_test
