#include "tests/cuda/reference.h"

namespace rat::cuda_test {
namespace {

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
std::size_t at(int64_t index) { return static_cast<std::size_t>(index); }

// Turns the pairs (i, i + P/2) of a head by the angles of chunk c; direction -1 turns back.
void rotate(double* x, int64_t P, int64_t c, double direction) {
  for (int64_t i = 0; i < P / 2; ++i) {
    const double angle = direction * static_cast<double>(c) * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(P));
    const double low = x[i], high = x[i + P / 2];
    x[i] = low * std::cos(angle) - high * std::sin(angle);
    x[i + P / 2] = high * std::cos(angle) + low * std::sin(angle);
  }
}

}  // namespace

void AttentionReference::forward() {
  const RatShape& s = shape;
  const int64_t P = s.head_size, D = s.channels();
  const double scale = 1.0 / std::sqrt(static_cast<double>(P));
  out.assign(at(s.rows() * D), 0.0);
  y = out;
  lse.assign(at(s.rows() * s.heads), 0.0);
  for (int64_t row = 0; row < s.rows(); ++row)
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t b = row / s.tokens, t = row % s.tokens;
      const double* q = &q_rot[at(row * s.group_width() + h % s.groups * P)];
      Doubles scores;
      for (int64_t j = 0; j < t / s.chunk_len; ++j) {
        double dot = 0.0;
        for (int64_t i = 0; i < P; ++i) dot += q[i] * keys[key_at(b, h, j) + at(i)];
        scores.push_back(dot * scale);
      }
      scores.push_back(own_score[at(row * s.heads + h)]);
      double top = scores[0], sum = 0.0;
      for (const double score : scores) top = std::max(top, score);
      for (const double score : scores) sum += std::exp(score - top);
      const double log_sum = top + std::log(sum);
      lse[at((b * s.heads + h) * s.tokens + t)] = log_sum;
      double* result = &out[at(row * D + h * P)];
      for (std::size_t j = 0; j < scores.size(); ++j) {
        const double p = std::exp(scores[j] - log_sum);
        const bool own = j + 1 == scores.size();
        const double* value = own ? &own_v[at(row * D + h * P)] : &values[key_at(b, h, static_cast<int64_t>(j))];
        for (int64_t i = 0; i < P; ++i) result[i] += p * value[i];
      }
      for (int64_t i = 0; i < P; ++i) y[at(row * D + h * P + i)] = result[i] * sigmoid(z[at(row * D + h * P + i)]);
    }
}

void AttentionReference::backward() {
  const RatShape& s = shape;
  const int64_t P = s.head_size, D = s.channels();
  const double scale = 1.0 / std::sqrt(static_cast<double>(P));
  grad_out = grad_z = grad_own_v = Doubles(at(s.rows() * D), 0.0);
  delta = Doubles(lse.size(), 0.0);
  grad_q_rot.assign(q_rot.size(), 0.0);
  grad_keys.assign(keys.size(), 0.0);
  grad_values.assign(values.size(), 0.0);
  grad_own_score.assign(own_score.size(), 0.0);
  for (int64_t row = 0; row < s.rows(); ++row)
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t b = row / s.tokens, t = row % s.tokens;
      const std::size_t head = at(row * D + h * P), q_at = at(row * s.group_width() + h % s.groups * P);
      double total = 0.0, own_grad = 0.0;
      for (int64_t i = 0; i < P; ++i) {
        const std::size_t c = head + at(i);
        const double open = sigmoid(z[c]);
        grad_out[c] = grad_y[c] * open;
        grad_z[c] = grad_y[c] * out[c] * open * (1.0 - open);
        total += grad_out[c] * out[c];
        own_grad += grad_out[c] * own_v[c];
      }
      const std::size_t stat = at((b * s.heads + h) * s.tokens + t);
      delta[stat] = total;
      const double own_p = std::exp(own_score[at(row * s.heads + h)] - lse[stat]);
      grad_own_score[at(row * s.heads + h)] = own_p * (own_grad - total);
      for (int64_t i = 0; i < P; ++i) grad_own_v[head + at(i)] = own_p * grad_out[head + at(i)];
      for (int64_t j = 0; j < t / s.chunk_len; ++j) {
        const std::size_t key = key_at(b, h, j);
        double dot = 0.0, grad_p = 0.0;
        for (int64_t i = 0; i < P; ++i) {
          dot += q_rot[q_at + at(i)] * keys[key + at(i)];
          grad_p += grad_out[head + at(i)] * values[key + at(i)];
        }
        const double p = std::exp(dot * scale - lse[stat]), grad_score = p * (grad_p - total) * scale;
        for (int64_t i = 0; i < P; ++i) {
          grad_values[key + at(i)] += p * grad_out[head + at(i)];
          grad_keys[key + at(i)] += grad_score * q_rot[q_at + at(i)];
          grad_q_rot[q_at + at(i)] += grad_score * keys[key + at(i)];
        }
      }
    }
}

void CoreReference::forward() {
  const RatShape& s = shape;
  const int64_t P = s.head_size, D = s.channels(), H = s.heads;
  AttentionReference& a = attention;
  a.shape = s;
  gate = own_k = own_v = a.z = Doubles(at(s.rows() * D));
  a.own_score.assign(at(s.rows() * H), 0.0);
  a.q_rot.assign(at(s.rows() * s.group_width()), 0.0);
  a.keys.assign(at(s.batch * H * a.key_rows() * P), 0.0);
  a.values = a.keys;
  for (int64_t row = 0; row < s.rows(); ++row) {
    const int64_t b = row / s.tokens, t = row % s.tokens, c = t / s.chunk_len;
    const bool start = t % s.chunk_len == 0, end = t % s.chunk_len == s.chunk_len - 1;
    for (int64_t i = 0; i < s.group_width(); ++i) a.q_rot[at(row * s.group_width() + i)] = projected(row, s.query_column() + i);
    for (int64_t g = 0; positions && g < s.groups; ++g) rotate(&a.q_rot[at(row * s.group_width() + g * P)], P, c, 1.0);
    for (int64_t h = 0; h < H; ++h) {
      double dot = 0.0;
      for (int64_t i = 0; i < P; ++i) {
        const int64_t channel = h * P + i, shared = h % s.groups * P + i;
        const std::size_t cell = at(row * D + channel);
        a.z[cell] = projected(row, channel);
        gate[cell] = sigmoid(projected(row, s.gate_column() + channel) + gate_bias[at(channel)]);
        const double k = projected(row, s.key_column() + shared), v = projected(row, s.value_column() + channel);
        const double k_old = start ? 0.0 : own_k[cell - at(D)], v_old = start ? 0.0 : own_v[cell - at(D)];
        own_k[cell] = gate[cell] * k_old + (1.0 - gate[cell]) * k;
        own_v[cell] = gate[cell] * v_old + (1.0 - gate[cell]) * v;
        dot += projected(row, s.query_column() + shared) * own_k[cell];
      }
      a.own_score[at(row * H + h)] = dot / std::sqrt(static_cast<double>(P));
      if (!end) continue;
      for (int64_t i = 0; i < P; ++i) {
        a.keys[a.key_at(b, h, c) + at(i)] = own_k[at(row * D + h * P + i)];
        a.values[a.key_at(b, h, c) + at(i)] = own_v[at(row * D + h * P + i)];
      }
      if (positions) rotate(&a.keys[a.key_at(b, h, c)], P, c, 1.0);
    }
  }
  a.own_v = own_v;
  a.forward();
}

void CoreReference::backward(const Doubles& grad_y) {
  const RatShape& s = shape;
  const int64_t P = s.head_size, D = s.channels(), W = s.proj_width();
  AttentionReference& a = attention;
  a.grad_y = grad_y;
  a.backward();
  const double scale = 1.0 / std::sqrt(static_cast<double>(P));
  grad_proj.assign(at(s.rows() * W), 0.0);
  grad_gate_bias.assign(at(D), 0.0);
  for (int64_t row = 0; row < s.rows(); ++row) {
    const int64_t c = row % s.tokens / s.chunk_len;
    for (int64_t i = 0; i < D; ++i) grad_proj[at(row * W + i)] = a.grad_z[at(row * D + i)];
    Doubles turned(a.grad_q_rot.begin() + row * s.group_width(), a.grad_q_rot.begin() + (row + 1) * s.group_width());
    for (int64_t g = 0; positions && g < s.groups; ++g) rotate(&turned[at(g * P)], P, c, -1.0);
    for (int64_t i = 0; i < s.group_width(); ++i) grad_proj[at(row * W + s.query_column() + i)] = turned[at(i)];
  }
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h) {
      Doubles k_carry(at(P), 0.0), v_carry(at(P), 0.0);
      for (int64_t t = s.tokens - 1; t >= 0; --t) {
        const int64_t row = b * s.tokens + t, c = t / s.chunk_len;
        const bool start = t % s.chunk_len == 0, end = t % s.chunk_len == s.chunk_len - 1;
        if (end || t == s.tokens - 1) {
          std::fill(k_carry.begin(), k_carry.end(), 0.0);
          std::fill(v_carry.begin(), v_carry.end(), 0.0);
        }
        if (end) {
          for (int64_t i = 0; i < P; ++i) {
            k_carry[at(i)] = a.grad_keys[a.key_at(b, h, c) + at(i)];
            v_carry[at(i)] = a.grad_values[a.key_at(b, h, c) + at(i)];
          }
          if (positions) rotate(k_carry.data(), P, c, -1.0);
        }
        const double score_grad = a.grad_own_score[at(row * s.heads + h)] * scale;
        for (int64_t i = 0; i < P; ++i) {
          const int64_t channel = h * P + i, shared = h % s.groups * P + i;
          const std::size_t cell = at(row * D + channel);
          const double open = gate[cell];
          const double k_grad = k_carry[at(i)] + score_grad * projected(row, s.query_column() + shared);
          const double v_grad = v_carry[at(i)] + a.grad_own_v[cell];
          const double k_old = start ? 0.0 : own_k[cell - at(D)], v_old = start ? 0.0 : own_v[cell - at(D)];
          const double gate_grad = (k_grad * (k_old - projected(row, s.key_column() + shared)) +
                                    v_grad * (v_old - projected(row, s.value_column() + channel))) * open * (1.0 - open);
          grad_proj[at(row * W + s.gate_column() + channel)] = gate_grad;
          grad_gate_bias[at(channel)] += gate_grad;
          grad_proj[at(row * W + s.value_column() + channel)] = (1.0 - open) * v_grad;
          grad_proj[at(row * W + s.key_column() + shared)] += (1.0 - open) * k_grad;
          grad_proj[at(row * W + s.query_column() + shared)] += score_grad * own_k[cell];
          k_carry[at(i)] = open * k_grad;
          v_carry[at(i)] = open * v_grad;
        }
      }
    }
}

}  // namespace rat::cuda_test
