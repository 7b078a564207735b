#include "experiments/tasks/scores.h"

#include <algorithm>
#include <cmath>

namespace rat {
namespace {

// log sum exp(logits) - logits[target].
double cross_entropy(std::span<const float> logits, int32_t target) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum) - static_cast<double>(logits[static_cast<std::size_t>(target)]);
}

void append_scores(TokenScores& scores, const TokenBatch& batch, std::span<const float> logits) {
  const std::size_t vocab = logits.size() / batch.targets.size();
  for (std::size_t i = 0; i < batch.targets.size(); ++i) {
    const int32_t target = batch.targets[i];
    if (target == ignore_target) {
      scores.loss.push_back(0);
      scores.correct.push_back(TokenScores::no_target);
      continue;
    }
    const auto row = logits.subspan(i * vocab, vocab);
    scores.loss.push_back(static_cast<float>(cross_entropy(row, target)));
    // A NaN among the logits makes max_element meaningless, so the loss, which it also makes NaN, decides.
    const bool right = std::isfinite(scores.loss.back()) && std::ranges::max_element(row) - row.begin() == target;
    scores.correct.push_back(right ? 1 : 0);
  }
  scores.sequences += batch.batch;
}

// Sums `value(i)` over the predictions in positions [begin, end) of each sequence.
template <class Value>
Estimate over_sequences(const TokenScores& scores, int64_t begin, int64_t end, Value value) {
  const auto n = static_cast<std::size_t>(scores.sequences), T = static_cast<std::size_t>(scores.tokens);
  std::vector<double> sums(n, 0);
  std::vector<int64_t> counts(n, 0);
  for (std::size_t row = 0; row < n; ++row) {
    for (std::size_t t = static_cast<std::size_t>(begin); t < static_cast<std::size_t>(end); ++t) {
      const std::size_t i = row * T + t;
      if (scores.correct[i] == TokenScores::no_target) continue;
      sums[row] += value(i);
      ++counts[row];
    }
  }
  return ratio_of_means(sums, counts);
}

}  // namespace

Result<TokenScores> score(Model& model, std::span<const TokenBatch> batches, const ScoreOptions& options) {
  TokenScores scores;
  for (const TokenBatch& batch : batches) {
    RAT_CHECK(scores.tokens == 0 || scores.tokens == batch.tokens, "all batches of a score have one length");
    scores.tokens = batch.tokens;
    RAT_ASSIGN(const std::vector<float> logits, model.logits(batch.inputs, batch.batch, {options.stop, nullptr}));
    append_scores(scores, batch, logits);
    if (options.advance) options.advance(batch.batch * batch.tokens);
  }
  return scores;
}

Estimate ratio_of_means(std::span<const double> sums, std::span<const int64_t> counts) {
  double sum = 0;
  Estimate estimate;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (counts[i] == 0) continue;
    sum += sums[i];
    estimate.targets += counts[i];
    ++estimate.sequences;
  }
  const auto n = static_cast<double>(estimate.sequences), total = static_cast<double>(estimate.targets);
  estimate.value = estimate.targets > 0 ? sum / total : std::nan("");
  double squares = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const double residual = sums[i] - estimate.value * static_cast<double>(counts[i]);
    if (counts[i] > 0) squares += residual * residual;
  }
  estimate.standard_error = estimate.sequences > 1 ? std::sqrt(squares * n / (n - 1)) / total : std::nan("");
  return estimate;
}

Estimate mean_loss(const TokenScores& scores, int64_t begin, int64_t end) {
  return over_sequences(scores, begin, end, [&](std::size_t i) { return static_cast<double>(scores.loss[i]); });
}

Estimate mean_accuracy(const TokenScores& scores, int64_t begin, int64_t end) {
  return over_sequences(scores, begin, end, [&](std::size_t i) { return static_cast<double>(scores.correct[i]); });
}

Estimate context_chance(std::span<const TokenBatch> batches, TokenRange answers) {
  std::vector<double> sums;
  std::vector<int64_t> counts;
  for (const TokenBatch& batch : batches) {
    for (int64_t row = 0; row < batch.batch; ++row) {
      std::vector<int64_t> seen(static_cast<std::size_t>(answers.count), 0);
      int64_t all = 0;
      sums.push_back(0);
      counts.push_back(0);
      for (int64_t i = row * batch.tokens; i < (row + 1) * batch.tokens; ++i) {
        const int64_t token = batch.inputs[static_cast<std::size_t>(i)] - answers.first;
        if (token >= 0 && token < answers.count) ++seen[static_cast<std::size_t>(token)], ++all;
        const int64_t target = batch.targets[static_cast<std::size_t>(i)];
        if (target == ignore_target) continue;
        const auto times = static_cast<double>(seen[static_cast<std::size_t>(target - answers.first)]);
        sums.back() += all > 0 ? times / static_cast<double>(all) : 0.0;
        ++counts.back();
      }
    }
  }
  return ratio_of_means(sums, counts);
}

}  // namespace rat
