#include <algorithm>
#include <memory>

#include "kernels/cuda/chunk_attention.h"
#include "kernels/cuda/chunk_scan.h"
#include "kernels/cuda/rat_decode.h"
#include "tests/cuda/reference.h"
#include "tests/cuda/suites.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

template <class T>
constexpr const char* kName = std::is_same_v<T, float> ? "f32" : "bf16";
// f32 is compared with float64 directly; bf16 rounds its intermediate tensors (2^-9 each), and the gradients of the
// softmax subtract numbers of similar size.
template <class T>
constexpr double kForwardBound = std::is_same_v<T, float> ? 3e-6 : 8e-3;
template <class T>
constexpr double kBackwardBound = std::is_same_v<T, float> ? 1e-5 : 1.5e-2;

std::string describe(const RatShape& s) {
  return "B" + std::to_string(s.batch) + " T" + std::to_string(s.tokens) + " H" + std::to_string(s.heads) + " P" +
         std::to_string(s.head_size) + " G" + std::to_string(s.groups) + " L" + std::to_string(s.chunk_len);
}

// All device tensors of the layer core for one shape.
template <class T>
struct Core {
  RatShape s;
  int64_t key_rows;
  Device<T> proj, own_v, q_rot, keys, values, y, grad_y, grad_out, grad_proj;
  Device<float> bias, own_score, lse, delta, grad_q_rot, grad_keys, grad_values, grad_bias, workspace, state_k, state_v;
  Device<float2> rope;
  Device<int> order_of_sums;
  bool positions = true;

  explicit Core(const RatShape& shape)
      : s(shape), key_rows(std::max<int64_t>(1, s.full_chunks())), proj(s.rows() * s.proj_width()),
        own_v(s.rows() * s.channels()), q_rot(s.rows() * s.group_width()), keys(s.batch * s.channels() * key_rows),
        values(keys.count()), y(own_v.count()), grad_y(own_v.count()), grad_out(own_v.count()), grad_proj(proj.count()),
        bias(s.channels()), own_score(s.rows() * s.heads), lse(own_score.count()), delta(own_score.count()),
        grad_q_rot(q_rot.count()), grad_keys(keys.count()), grad_values(keys.count()), grad_bias(s.channels()),
        workspace(chunk_scan_backward_workspace<T>(s)), state_k(s.batch * s.channels()), state_v(s.batch * s.channels()),
        rope(s.chunks() * (s.head_size / 2)), order_of_sums(chunk_attention_turns(s)) {
    require(rope_table(rope.get(), s.chunks(), s.head_size, 10000.0, nullptr));
  }
  const float2* turns() const { return positions ? rope.get() : nullptr; }
  KeyRows<T> key_view() const { return head_major(keys.get(), s, key_rows); }
  KeyRows<T> value_view() const { return head_major(values.get(), s, key_rows); }

  void scan() {
    ChunkScanArgs<T> args{s, proj.get(), s.proj_width(), bias.get(), turns(), own_v.get(), own_score.get(), q_rot.get(),
                          key_view(), value_view()};
    args.state_k = state_k.get();
    args.state_v = state_v.get();
    require(chunk_scan<T>(args, nullptr));
  }
  void attend(AttentionPath path) {
    require(chunk_attention<T>({s, q_rot.get(), read_only(key_view()), read_only(value_view()), own_score.get(), own_v.get(),
                                proj.get(), s.proj_width(), y.get(), lse.get()},
                               path, nullptr));
  }
  void attend_backward(AttentionPath path) {
    require(output_gate_backward<T>({s, grad_y.get(), y.get(), proj.get(), s.proj_width(), grad_out.get(), grad_proj.get(),
                                     s.proj_width(), delta.get()},
                                    nullptr));
    ChunkAttentionBackwardArgs<T> args{s, q_rot.get(), read_only(key_view()), read_only(value_view()), grad_out.get(),
                                       lse.get(), delta.get(), grad_q_rot.get(), head_major(grad_keys.get(), s, key_rows),
                                       head_major(grad_values.get(), s, key_rows)};
    args.turns = order_of_sums.get();
    require(chunk_attention_backward<T>(args, path, nullptr));
  }
  void scan_backward(T* out) {
    require(chunk_scan_backward<T>({s, proj.get(), s.proj_width(), bias.get(), turns(), own_score.get(), lse.get(),
                                    delta.get(), grad_out.get(), grad_q_rot.get(),
                                    read_only(head_major(grad_keys.get(), s, key_rows)),
                                    read_only(head_major(grad_values.get(), s, key_rows)), out, s.proj_width(),
                                    grad_bias.get(), workspace.get()},
                                   nullptr));
  }
};

// Rows [0, keys()) of every head: what backward writes.
Doubles seen_rows(const Doubles& all, const RatShape& s, int64_t key_rows) {
  Doubles result;
  for (int64_t head = 0; head < s.batch * s.heads; ++head)
    result.insert(result.end(), all.begin() + head * key_rows * s.head_size,
                  all.begin() + (head * key_rows + s.keys()) * s.head_size);
  return result;
}

template <class T>
void core_case(Checks& checks, const RatShape& s, const std::vector<AttentionPath>& paths, bool positions = true) {
  std::mt19937_64 random(static_cast<uint64_t>(s.tokens * 1009 + s.chunk_len * 31 + s.head_size));
  CoreReference reference;
  reference.shape = s;
  reference.positions = positions;
  reference.proj = random_values<T>(s.rows() * s.proj_width(), random);
  reference.gate_bias = random_values<float>(s.channels(), random);
  const Doubles grad_y = random_values<T>(s.rows() * s.channels(), random);
  reference.forward();
  reference.backward(grad_y);
  const AttentionReference& attention = reference.attention;

  Core<T> core(s);
  core.positions = positions;
  core.proj.set(reference.proj);
  core.bias.set(reference.gate_bias);
  core.grad_y.set(grad_y);
  core.scan();
  require(cudaDeviceSynchronize(), "chunk_scan");
  const std::string name = std::string(kName<T>) + " " + describe(s) + " ";
  checks.within("scan " + name + "own_v", core.own_v.values(), reference.own_v, kForwardBound<T>);
  checks.within("scan " + name + "own_score", core.own_score.values(), attention.own_score, kForwardBound<T>);
  checks.within("scan " + name + "q_rot", core.q_rot.values(), attention.q_rot, kForwardBound<T>);
  if (s.full_chunks() > 0) {
    checks.within("scan " + name + "keys", core.keys.values(), attention.keys, kForwardBound<T>);
    checks.within("scan " + name + "values", core.values.values(), attention.values, kForwardBound<T>);
  }
  Doubles last_v;
  for (int64_t b = 0; b < s.batch; ++b)
    last_v.insert(last_v.end(), reference.own_v.begin() + ((b + 1) * s.tokens - 1) * s.channels(),
                  reference.own_v.begin() + (b + 1) * s.tokens * s.channels());
  checks.within("scan " + name + "state_v", core.state_v.values(), last_v, std::is_same_v<T, float> ? 3e-6 : 3e-3);

  for (const AttentionPath path : paths) {
    if (!path_problem<T>(path, s.head_size).empty()) continue;
    core.y.poison(), core.lse.poison(), core.grad_out.poison(), core.delta.poison(), core.grad_q_rot.poison();
    core.grad_keys.poison(), core.grad_values.poison(), core.grad_proj.poison(), core.grad_bias.poison();
    core.workspace.poison();
    core.attend(path);
    core.attend_backward(path);
    core.scan_backward(core.grad_proj.get());
    require(cudaDeviceSynchronize(), path_name(path));
    const std::string at = std::string(path_name(path)) + " " + name;
    checks.within(at + "y", core.y.values(), attention.y, kForwardBound<T>);
    checks.within(at + "lse", core.lse.values(), attention.lse, kForwardBound<T>);
    checks.within(at + "grad_out", core.grad_out.values(), attention.grad_out, kForwardBound<T>);
    checks.within(at + "delta", core.delta.values(), attention.delta, kBackwardBound<T>);
    if (s.keys() > 0) {
      checks.within(at + "grad_q_rot", core.grad_q_rot.values(), attention.grad_q_rot, kBackwardBound<T>);
      checks.within(at + "grad_keys", seen_rows(core.grad_keys.values(), s, core.key_rows),
                    seen_rows(attention.grad_keys, s, core.key_rows), kBackwardBound<T>);
      checks.within(at + "grad_values", seen_rows(core.grad_values.values(), s, core.key_rows),
                    seen_rows(attention.grad_values, s, core.key_rows), kBackwardBound<T>);
    }
    checks.within(at + "grad_proj", core.grad_proj.values(), reference.grad_proj, kBackwardBound<T>);
    checks.within(at + "grad_gate_bias", core.grad_bias.values(), reference.grad_gate_bias, kBackwardBound<T>);
  }
  // In place, as the layer runs it: the gradient of the projected tensor over the tensor itself.
  const auto apart = core.grad_proj.raw();
  const AttentionPath path = paths.back();
  if (!path_problem<T>(path, s.head_size).empty()) return;
  require(output_gate_backward<T>({s, core.grad_y.get(), core.y.get(), core.proj.get(), s.proj_width(), core.grad_y.get(),
                                   core.proj.get(), s.proj_width(), core.delta.get()},
                                  nullptr));
  core.scan_backward(core.proj.get());
  require(cudaDeviceSynchronize(), "chunk_scan_backward in place");
  checks.that("in place " + name + "equals apart", core.proj.raw() == apart);
}

const std::vector<AttentionPath> kSimple{AttentionPath::simple};
const std::vector<AttentionPath> kAll{AttentionPath::simple, AttentionPath::mma, AttentionPath::wgmma};
const std::vector<AttentionPath> kTensorCores{AttentionPath::mma, AttentionPath::wgmma};

// Rotated queries, keys and so on given directly, so that scores can be made extreme.
template <class T>
void attention_case(Checks& checks, const std::string& name, AttentionReference reference, double bound) {
  const RatShape& s = reference.shape;
  std::mt19937_64 random(11);
  reference.grad_y = random_values<T>(s.rows() * s.channels(), random);
  reference.forward();
  reference.backward();
  Core<T> core(s);
  // z is read from the projected tensor; the rest of it, and key rows that no token sees, are NaN.
  const Doubles z = reference.z;
  Doubles proj(static_cast<std::size_t>(s.rows() * s.proj_width()), NAN);
  for (int64_t row = 0; row < s.rows(); ++row)
    std::copy_n(z.begin() + row * s.channels(), s.channels(), proj.begin() + row * s.proj_width());
  core.proj.set(proj);
  core.q_rot.set(reference.q_rot);
  Doubles keys = reference.keys, values = reference.values;
  for (int64_t head = 0; head < s.batch * s.heads; ++head)
    for (int64_t j = s.keys(); j < core.key_rows; ++j)
      for (int64_t i = 0; i < s.head_size; ++i)
        keys[static_cast<std::size_t>((head * core.key_rows + j) * s.head_size + i)] =
            values[static_cast<std::size_t>((head * core.key_rows + j) * s.head_size + i)] = NAN;
  core.keys.set(keys);
  core.values.set(values);
  core.own_score.set(reference.own_score);
  core.own_v.set(reference.own_v);
  core.grad_y.set(reference.grad_y);
  for (const AttentionPath path : kAll) {
    if (!path_problem<T>(path, s.head_size).empty()) continue;
    core.y.poison(), core.lse.poison(), core.grad_q_rot.poison(), core.grad_keys.poison(), core.grad_values.poison();
    core.attend(path);
    core.attend_backward(path);
    require(cudaDeviceSynchronize(), path_name(path));
    const std::string at = name + " " + path_name(path) + " " + kName<T> + " ";
    checks.within(at + "y", core.y.values(), reference.y, bound);
    checks.within(at + "lse", core.lse.values(), reference.lse, bound);
    checks.within(at + "grad_q_rot", core.grad_q_rot.values(), reference.grad_q_rot, 2.0 * bound);
    checks.within(at + "grad_keys", seen_rows(core.grad_keys.values(), s, core.key_rows),
                  seen_rows(reference.grad_keys, s, core.key_rows), 2.0 * bound);
    checks.within(at + "grad_values", seen_rows(core.grad_values.values(), s, core.key_rows),
                  seen_rows(reference.grad_values, s, core.key_rows), 2.0 * bound);
  }
}

template <class T>
AttentionReference random_attention(const RatShape& s, std::mt19937_64& random) {
  AttentionReference a;
  a.shape = s;
  a.q_rot = random_values<T>(s.rows() * s.group_width(), random);
  a.keys = random_values<T>(s.batch * s.channels() * a.key_rows(), random);
  a.values = random_values<T>(static_cast<int64_t>(a.keys.size()), random);
  a.own_score = random_values<float>(s.rows() * s.heads, random);
  a.own_v = random_values<T>(s.rows() * s.channels(), random);
  a.z = random_values<T>(s.rows() * s.channels(), random);
  return a;
}

template <class T>
void adversarial_cases(Checks& checks, int64_t head_size, double bound) {
  const RatShape s{2, 150, 2, head_size, 1, 2};  // 75 chunks; 74 seen, the last key row of each head is NaN
  std::mt19937_64 random(static_cast<uint64_t>(head_size));
  const double root = std::sqrt(static_cast<double>(head_size));
  const std::string name = std::string("P") + std::to_string(head_size) + " ";
  attention_case<T>(checks, name + "random", random_attention<T>(s, random), bound);
  {  // every score near -100: LSE near -100
    AttentionReference a = random_attention<T>(s, random);
    const double size = rounded<T>(std::sqrt(100.0 / root));
    for (double& q : a.q_rot) q = rounded<T>(size + 0.01 * q);
    for (double& k : a.keys) k = rounded<T>(-size + 0.01 * k);
    for (double& score : a.own_score) score = rounded<float>(-100.0 + 0.1 * score);
    attention_case<T>(checks, name + "lse near -100", a, bound);
  }
  {  // equal keys: the softmax is flat
    AttentionReference a = random_attention<T>(s, random);
    for (std::size_t i = 0; i < a.keys.size(); ++i) a.keys[i] = a.keys[i % static_cast<std::size_t>(head_size)];
    attention_case<T>(checks, name + "equal keys", a, bound);
  }
  {  // one key with a score of about +80, in the middle
    AttentionReference a = random_attention<T>(s, random);
    const double size = rounded<T>(std::sqrt(80.0 / root));
    for (double& q : a.q_rot) q = rounded<T>(size + 0.05 * q);
    for (int64_t i = 0; i < head_size; ++i) a.keys[a.key_at(0, 1, 40) + static_cast<std::size_t>(i)] = size;
    attention_case<T>(checks, name + "one +80 score", a, bound);
  }
  {  // zero queries, and own keys that decide
    AttentionReference a = random_attention<T>(s, random);
    std::fill(a.q_rot.begin(), a.q_rot.end(), 0.0);
    attention_case<T>(checks, name + "zero queries", a, bound);
    for (double& score : a.own_score) score = 60.0;
    const AttentionReference own = a;
    attention_case<T>(checks, name + "own key wins", own, bound);
  }
}

template <class T>
void decode_case(Checks& checks, const RatShape& s, int splits, bool positions) {
  std::mt19937_64 random(static_cast<uint64_t>(s.tokens + splits));
  CoreReference reference;
  reference.shape = s;
  reference.positions = positions;
  reference.proj = random_values<T>(s.rows() * s.proj_width(), random);
  reference.gate_bias = random_values<float>(s.channels(), random);
  reference.forward();
  const int64_t capacity = s.full_chunks() + 1, W = s.proj_width(), D = s.channels();
  RatShape one = s;
  one.tokens = 1;
  Device<T> proj(reference.proj), step(s.batch * W), y(s.batch * D), keys(s.batch * D * capacity), values(keys.count());
  Device<float> bias(reference.gate_bias), state_k(s.batch * D), state_v(s.batch * D);
  Device<float2> rope((capacity + 1) * (s.head_size / 2));
  Device<int32_t> position(Doubles{0.0});
  require(rope_table(rope.get(), capacity + 1, s.head_size, 10000.0, nullptr));
  Device<float> workspace(static_cast<int64_t>(rat_decode_workspace(one, splits) / sizeof(float)));
  require(cudaMemset(workspace.get(), 0, workspace.bytes()), "workspace");
  RatDecodeArgs<T> args;
  args.shape = one, args.capacity = capacity, args.angles = capacity + 1, args.position = position.get();
  args.proj = step.get(), args.proj_stride = W, args.gate_bias = bias.get(), args.rope = positions ? rope.get() : nullptr;
  args.state_k = state_k.get(), args.state_v = state_v.get();
  args.keys = head_major(keys.get(), one, capacity), args.values = head_major(values.get(), one, capacity);
  args.y = y.get(), args.splits = splits, args.keys_of_split = 1, args.workspace = workspace.get();
  Doubles all(static_cast<std::size_t>(s.rows() * D));
  for (int64_t t = 0; t < s.tokens; ++t) {
    require(cudaMemcpy2D(step.get(), static_cast<std::size_t>(W) * sizeof(T), proj.get() + t * W,
                         static_cast<std::size_t>(s.tokens * W) * sizeof(T), static_cast<std::size_t>(W) * sizeof(T),
                         static_cast<std::size_t>(s.batch), cudaMemcpyDeviceToDevice),
            "one token");
    y.poison();
    require(rat_decode<T>(args, nullptr));
    require(advance_position(position.get(), nullptr));
    const Doubles now = y.values();
    for (int64_t b = 0; b < s.batch; ++b)
      std::copy_n(now.begin() + b * D, D, all.begin() + (b * s.tokens + t) * D);
  }
  checks.within("decode " + std::string(kName<T>) + " " + describe(s) + " splits " + std::to_string(splits), all,
                reference.attention.y, kForwardBound<T>);
}

}  // namespace

void test_core(Checks& checks) {
  const auto shape = [](int64_t B, int64_t T, int64_t H, int64_t P, int64_t G, int64_t L) {
    return RatShape{B, T, H, P, G, L};
  };
  // any head size and group count, lengths around the segment (16) and tile sizes, L = 1 and L >= T
  for (const RatShape& s : {shape(2, 1, 2, 8, 1, 1), shape(1, 33, 4, 8, 2, 1), shape(2, 37, 4, 8, 4, 16), shape(1, 40, 3, 24, 3, 7),
                            shape(1, 50, 6, 32, 3, 17), shape(2, 45, 12, 2, 3, 6), shape(1, 70, 2, 256, 1, 9), shape(1, 64, 4, 16, 2, 64),
                            shape(1, 65, 4, 16, 2, 64), shape(1, 100, 2, 64, 1, 33), shape(1, 40, 3, 64, 1, 16), shape(2, 130, 4, 128, 2, 40)}) {
    core_case<float>(checks, s, kSimple, s.tokens % 2 == 0);
    core_case<bf16>(checks, s, kSimple);
  }
  // tensor cores: C around the key tiles (64, 128), rows around the row tiles, G = 1 .. 4
  for (const int64_t P : {64, 128}) {
    for (const int64_t C : {1, 2, 63, 64, 65, 127, 128, 129}) {
      core_case<bf16>(checks, shape(1, C * 4 - 1, 2, P, 1 + C % 2, 4), kAll);
      core_case<bf16>(checks, shape(2, C, 2, P, 1, 1), kTensorCores);
    }
    core_case<bf16>(checks, shape(1, 16 * 66, 4, P, 2, 16), kTensorCores);
    core_case<bf16>(checks, shape(1, 16 * 17 + 5, 4, P, 4, 16), kTensorCores);
    core_case<bf16>(checks, shape(2, 300, 6, P, 3, 7), kTensorCores);
    core_case<bf16>(checks, shape(2, 70, 9, P, 3, 16), kTensorCores);  // heads that do not fill the scan's warps
    core_case<bf16>(checks, shape(1, 40, 11, P, 1, 16), kTensorCores);
    core_case<bf16>(checks, shape(1, 257, 2, P, 2, 300), kTensorCores);
    core_case<bf16>(checks, shape(1, 520, 16, P, 2, 130), kTensorCores, false);
  }
}

void test_small(Checks& checks) {
  core_case<float>(checks, {1, 21, 4, 16, 2, 5}, kSimple);
  core_case<bf16>(checks, {1, 37, 2, 64, 1, 18}, kAll);
  core_case<bf16>(checks, {1, 150, 2, 128, 2, 2}, kAll);
  decode_case<bf16>(checks, {1, 12, 2, 128, 1, 2}, 2, true);
}

void test_adversarial(Checks& checks) {
  adversarial_cases<float>(checks, 32, 5e-5);
  adversarial_cases<bf16>(checks, 64, 1.5e-2);
  adversarial_cases<bf16>(checks, 128, 1.5e-2);
}

void test_decode(Checks& checks) {
  for (const int splits : {1, 2, 5}) {
    decode_case<float>(checks, {2, 53, 4, 8, 2, 5}, splits, true);
    decode_case<float>(checks, {1, 40, 2, 256, 1, 1}, splits, true);
    decode_case<bf16>(checks, {3, 150, 4, 128, 2, 2}, splits, true);
    decode_case<bf16>(checks, {1, 90, 2, 64, 1, 1}, splits, false);
    decode_case<float>(checks, {2, 20, 4, 2, 4, 64}, splits, true);
    decode_case<bf16>(checks, {2, 40, 2, 16, 1, 3}, splits, true);
  }
}

void test_determinism(Checks& checks, int runs) {
  const RatShape s{2, 1500, 4, 128, 2, 16};
  std::mt19937_64 random(5);
  Core<bf16> core(s);
  core.proj.set(random_values<bf16>(core.proj.count(), random));
  core.bias.set(random_values<float>(s.channels(), random));
  core.grad_y.set(random_values<bf16>(core.grad_y.count(), random));
  for (const AttentionPath path : kAll) {
    if (!path_problem<bf16>(path, s.head_size).empty()) continue;
    std::vector<unsigned char> first_y, first_grad, first_bias;
    int equal = 0;
    for (int run = 0; run < runs; ++run) {
      core.y.poison(), core.grad_proj.poison();
      core.scan();
      core.attend(path);
      core.attend_backward(path);
      core.scan_backward(core.grad_proj.get());
      auto y = core.y.raw(), grad = core.grad_proj.raw(), bias = core.grad_bias.raw();
      if (run == 0) first_y = y, first_grad = grad, first_bias = bias;
      if (y == first_y && grad == first_grad && bias == first_bias) ++equal;
    }
    checks.that("bit-equal in " + std::to_string(runs) + " runs: " + path_name(path), equal == runs);
  }
}

// More blocks than run at a time add to the same gradients of queries, in one order: several tiles of keys, heads of a
// group, groups and sequences. The same bits every time, and what the simple path has.
void test_order_of_sums(Checks& checks, int runs) {
  for (const RatShape& s : {RatShape{3, 3000, 8, 64, 2, 2}, RatShape{2, 3000, 8, 128, 2, 2}}) {
    if (!path_problem<bf16>(AttentionPath::wgmma, s.head_size).empty()) continue;
    std::mt19937_64 random(6);
    Core<bf16> core(s);
    core.proj.set(random_values<bf16>(core.proj.count(), random));
    core.bias.set(random_values<float>(s.channels(), random));
    core.grad_y.set(random_values<bf16>(core.grad_y.count(), random));
    core.scan();
    core.attend(AttentionPath::simple);
    core.attend_backward(AttentionPath::simple);
    const Doubles expected = core.grad_q_rot.values();
    const std::string name = "heads of " + std::to_string(s.head_size);
    std::vector<unsigned char> first;
    int equal = 0;
    for (int run = 0; run < runs; ++run) {
      core.grad_q_rot.poison(), core.order_of_sums.poison();
      core.attend_backward(AttentionPath::wgmma);
      const auto sums = core.grad_q_rot.raw();
      if (run == 0) first = sums;
      if (sums == first) ++equal;
    }
    checks.within("gradients of queries, many blocks, " + name, core.grad_q_rot.values(), expected, 1.5e-2);
    checks.that("added up in one order, bit-equal in " + std::to_string(runs) + " runs, " + name, equal == runs);
  }
}

}  // namespace rat::cuda_test
