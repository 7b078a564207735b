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

// Room for the sequences of `batches`, nothing of them scored.
TokenScores empty_scores(std::span<const TokenBatch> batches) {
  TokenScores scores;
  for (const TokenBatch& batch : batches) {
    RAT_CHECK(scores.tokens == 0 || scores.tokens == batch.tokens, "all batches of a score have one length");
    scores.tokens = batch.tokens;
    scores.sequences += batch.batch;
  }
  const auto cells = static_cast<std::size_t>(scores.sequences * scores.tokens);
  scores.loss.assign(cells, 0);
  scores.correct.assign(cells, TokenScores::no_target);
  return scores;
}

void set_score(TokenScores& scores, std::size_t cell, int32_t target, std::span<const float> logits) {
  if (target == ignore_target) return;
  scores.loss[cell] = static_cast<float>(cross_entropy(logits, target));
  // A NaN among the logits makes max_element meaningless, so the loss, which it also makes NaN, decides.
  const bool right = std::isfinite(scores.loss[cell]) && std::ranges::max_element(logits) - logits.begin() == target;
  scores.correct[cell] = right ? 1 : 0;
}

// Sequences [first, first + count), one token of each in every step.
Status decode_together(Model& model, std::span<const int32_t> inputs, std::span<const int32_t> targets,
                       std::size_t first, std::size_t count, TokenScores& scores, const ScoreOptions& options) {
  const auto T = static_cast<std::size_t>(scores.tokens);
  const auto state = model.start_decoding(static_cast<int64_t>(count));
  std::vector<int32_t> tokens(count);
  for (std::size_t t = 0; t < T; ++t) {
    for (std::size_t row = 0; row < count; ++row) tokens[row] = inputs[(first + row) * T + t];
    RAT_ASSIGN(const std::vector<float> logits, model.decode(*state, tokens, {options.stop, nullptr}));
    const std::size_t vocab = logits.size() / count;
    for (std::size_t row = 0; row < count; ++row) {
      const std::size_t cell = (first + row) * T + t;
      set_score(scores, cell, targets[cell], std::span(logits).subspan(row * vocab, vocab));
    }
    if (options.advance) options.advance(static_cast<int64_t>(count));
  }
  scores.cache = state->cache_dtype();
  return ok();
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
  TokenScores scores = empty_scores(batches);
  std::size_t cell = 0;
  for (const TokenBatch& batch : batches) {
    RAT_ASSIGN(const std::vector<float> logits, model.logits(batch.inputs, batch.batch, {options.stop, nullptr}));
    const std::size_t vocab = logits.size() / batch.targets.size();
    for (std::size_t i = 0; i < batch.targets.size(); ++i)
      set_score(scores, cell++, batch.targets[i], std::span(logits).subspan(i * vocab, vocab));
    if (options.advance) options.advance(batch.batch * batch.tokens);
  }
  return scores;
}

Result<TokenScores> decode_scores(Model& model, std::span<const TokenBatch> batches, int64_t together,
                                  const ScoreOptions& options) {
  TokenScores scores = empty_scores(batches);
  std::vector<int32_t> inputs, targets;
  for (const TokenBatch& batch : batches) {
    inputs.insert(inputs.end(), batch.inputs.begin(), batch.inputs.end());
    targets.insert(targets.end(), batch.targets.begin(), batch.targets.end());
  }
  const auto n = static_cast<std::size_t>(scores.sequences);
  const auto most = static_cast<std::size_t>(std::max<int64_t>(1, together));
  for (std::size_t first = 0; first < n; first += most)
    RAT_TRY(decode_together(model, inputs, targets, first, std::min(most, n - first), scores, options));
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

Estimate mean_loss_difference(const TokenScores& scores, int64_t begin, int64_t end) {
  RAT_CHECK(scores.other_loss.size() == scores.loss.size(), "scores are compared with those of the same predictions");
  return over_sequences(scores, begin, end, [&](std::size_t i) {
    return static_cast<double>(scores.loss[i]) - static_cast<double>(scores.other_loss[i]);
  });
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
