#include "tests/cuda/token_reference.h"

namespace rat::cuda_test {

std::string describe_tokens(const RatShape& s) {
  return std::string("B") + std::to_string(s.batch) + " T" + std::to_string(s.tokens) + " H" + std::to_string(s.heads) + " P" +
         std::to_string(s.head_size) + " W" + std::to_string(s.window) + " ";
}

void TokenReference::run() {
  y.assign(at(s.rows() * s.channels()), 0.0);
  lse.assign(at(s.rows() * s.heads), 0.0);
  delta = lse;
  grad_proj.assign(proj.size(), 0.0);
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t t = 0; t < s.tokens; ++t) query(b, h, t);
}

void TokenReference::query(int64_t b, int64_t h, int64_t t) {
  const int64_t P = s.head_size, head = (b * s.tokens + t) * s.channels() + h * P;
  const double scale = 1.0 / std::sqrt(static_cast<double>(P));
  const std::size_t q = cell(b, t, 1, h), stat = at((b * s.heads + h) * s.tokens + t);
  std::vector<int64_t> seen;
  for (int64_t j = 0; j <= t; ++j)
    if (sees(t, j)) seen.push_back(j);
  Doubles p;
  for (const int64_t j : seen) p.push_back(dot(q, cell(b, j, 2, h)) * scale);
  const double top = *std::max_element(p.begin(), p.end());
  double sum = 0.0;
  for (const double score : p) sum += std::exp(score - top);
  lse[stat] = top + std::log(sum);
  for (double& score : p) score = std::exp(score - lse[stat]);
  for (std::size_t n = 0; n < seen.size(); ++n)
    for (int64_t i = 0; i < P; ++i) y[at(head + i)] += p[n] * proj[cell(b, seen[n], 0, h) + at(i)];
  for (int64_t i = 0; i < P; ++i) delta[stat] += grad_y[at(head + i)] * y[at(head + i)];
  for (std::size_t n = 0; n < seen.size(); ++n) {
    const std::size_t v = cell(b, seen[n], 0, h), k = cell(b, seen[n], 2, h);
    double grad_p = 0.0;
    for (int64_t i = 0; i < P; ++i) grad_p += grad_y[at(head + i)] * proj[v + at(i)];
    const double weight = p[n], grad_score = weight * (grad_p - delta[stat]) * scale;
    for (int64_t i = 0; i < P; ++i) {
      grad_proj[v + at(i)] += weight * grad_y[at(head + i)];
      grad_proj[k + at(i)] += grad_score * proj[q + at(i)];
      grad_proj[q + at(i)] += grad_score * proj[k + at(i)];
    }
  }
}

void rotate_rows(Doubles& proj, const TokenReference& r, double direction) {
  const RatShape& s = r.s;
  const int64_t half = s.head_size / 2;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t t = 0; t < s.tokens; ++t)
      for (int64_t head = 0; head < 2 * s.heads; ++head)
        for (int64_t i = 0; i < half; ++i) {
          const double frequency = std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half));
          const double angle = direction * static_cast<double>(t) * frequency;
          double& low = proj[r.cell(b, t, 1, head) + at(i)];
          double& high = proj[r.cell(b, t, 1, head) + at(i + half)];
          const double x = low, z = high;
          low = x * std::cos(angle) - z * std::sin(angle);
          high = z * std::cos(angle) + x * std::sin(angle);
        }
}

}  // namespace rat::cuda_test
