// Naive float64 forward formulas, written differently from the kernels (sums where they recur, whole matrices where
// they block), and gradients of them by central differences.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace rat::test {

using Values = std::vector<double>;

inline Values widen(const std::vector<float>& x) { return Values(x.begin(), x.end()); }

inline double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// d loss / d x[i] for every i. Step 1e-5: the truncation error is about 1e-10 and cancellation about 1e-11.
inline Values numeric_gradient(Values x, const std::function<double(const Values&)>& loss) {
  constexpr double step = 1e-5;
  Values gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    x[i] = at + step;
    const double above = loss(x);
    x[i] = at - step;
    const double below = loss(x);
    x[i] = at;
    gradient[i] = (above - below) / (2 * step);
  }
  return gradient;
}

// The unrolled sum: state[t] = sum over s <= t of the chunk of  gate[s+1] ... gate[t] (1 - gate[s]) input[s].
inline Values scan(const Values& gate, const Values& input, int64_t rows, int64_t T, int64_t D, int64_t W, int64_t L) {
  Values state(gate.size());
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t d = 0; d < D; ++d) {
      const int64_t t = row % T;
      double sum = 0, kept = 1;
      for (int64_t s = t; s >= t / L * L; --s) {
        const int64_t r = row - t + s;
        const double g = gate[static_cast<std::size_t>(r * D + d)];
        sum += kept * (1 - g) * input[static_cast<std::size_t>(r * W + d % W)];
        kept *= g;
      }
      state[static_cast<std::size_t>(row * D + d)] = sum;
    }
  return state;
}

inline Values rms_norm(const Values& x, const Values& weight, double eps = 1e-6) {
  const std::size_t D = weight.size();
  Values y(x.size());
  for (std::size_t row = 0; row < x.size(); row += D) {
    double squares = 0;
    for (std::size_t d = 0; d < D; ++d) squares += std::pow(x[row + d], 2);
    const double rms = std::pow(squares / static_cast<double>(D) + eps, 0.5);
    for (std::size_t d = 0; d < D; ++d) y[row + d] = weight[d] * (x[row + d] / rms);
  }
  return y;
}

inline double gelu(double x) { return x * std::erfc(-x / std::sqrt(2.0)) / 2; }

inline double cross_entropy(const Values& logits, std::size_t begin, std::size_t n, std::size_t target) {
  double sum = 0;
  for (std::size_t v = 0; v < n; ++v) sum += std::exp(logits[begin + v] - logits[begin + target]);
  return std::log(sum);
}

// One query token over an explicit list of keys; `seen[j]` says which.
struct AttentionCase {
  int64_t B, T, H, P, W, K;  // W: width of shared queries, K keys per sequence
  int64_t chunk = 1, offset = 1, window = -1;
  bool own = false;
  int64_t dilation = 0, initial = 0;  // dilation at least 1: also every dilation-th token and the first `initial`
  int64_t kv_heads = 0;               // 0: H

  bool sees(int64_t t, int64_t j) const {
    if (dilation > 0) return j <= t && ((j + 1) % dilation == 0 || t - j <= window || j < initial);
    const bool late_enough = window < 0 || j >= t - window;
    return late_enough && (j + 1) * chunk <= t + offset;
  }
  int64_t kv_width() const { return (kv_heads > 0 ? kv_heads : H) * P; }
};

struct AttentionInputs {
  Values q, k, v, own_q, own_k, own_v;
};

// weights[(b, h, t)] over K keys and then the own key (0 where unseen); lse per row.
inline Values attention(const AttentionCase& c, const AttentionInputs& in, Values* weights = nullptr,
                        Values* lse = nullptr) {
  const int64_t D = c.H * c.P;
  Values out(static_cast<std::size_t>(c.B * c.T * D));
  const auto at = [](int64_t i) { return static_cast<std::size_t>(i); };
  for (int64_t b = 0; b < c.B; ++b)
    for (int64_t h = 0; h < c.H; ++h)
      for (int64_t t = 0; t < c.T; ++t) {
        const int64_t row = b * c.T + t, q0 = row * c.W + (h * c.P) % c.W, kv0 = h * c.P % c.kv_width();
        Values p(at(c.K + 1), 0.0);
        double sum = 0;
        for (int64_t j = 0; j <= c.K; ++j) {
          if (j < c.K ? !c.sees(t, j) : !c.own) continue;
          double score = 0;
          for (int64_t i = 0; i < c.P; ++i)
            score += j < c.K ? in.q[at(q0 + i)] * in.k[at((b * c.K + j) * c.kv_width() + kv0 + i)]
                             : in.own_q[at(q0 + i)] * in.own_k[at(row * D + h * c.P + i)];
          sum += p[at(j)] = std::exp(score / std::sqrt(static_cast<double>(c.P)));
        }
        for (int64_t j = 0; j <= c.K; ++j) {
          p[at(j)] /= sum;
          for (int64_t i = 0; i < c.P && p[at(j)] > 0; ++i)
            out[at(row * D + h * c.P + i)] +=
                p[at(j)] *
                (j < c.K ? in.v[at((b * c.K + j) * c.kv_width() + kv0 + i)] : in.own_v[at(row * D + h * c.P + i)]);
        }
        if (weights) weights->insert(weights->end(), p.begin(), p.end() - (c.own ? 0 : 1));
        if (lse) lse->push_back(std::log(sum));
      }
  return out;
}

}  // namespace rat::test
