// What a model predicts on given sequences, token by token, and the means and standard errors of that.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/model.h"
#include "experiments/data/data_source.h"

namespace rat {

// Loss and success of every prediction, (n, T) row-major over n sequences of T tokens.
struct TokenScores {
  int64_t sequences = 0, tokens = 0;
  std::vector<float> loss;      // nats; 0 where no prediction is asked for
  std::vector<int8_t> correct;  // 1: the target was the most likely token (the first of equals); 0; no_target
  static constexpr int8_t no_target = -1;
  // Through decoding: in which precision the keys and values were kept, and what the predictions are compared with.
  std::string cache, compared_with;
  std::vector<float> other_loss;  // of that, as `loss`; empty: compared with nothing
};

struct ScoreOptions {
  const StopFlag* stop = nullptr;
  std::function<void(int64_t tokens)> advance;  // called with the tokens of each batch when it is done; may be empty
};

// One forward pass over each batch; all have the same T. The cross-entropy is taken from the logits in double.
Result<TokenScores> score(Model& model, std::span<const TokenBatch> batches, const ScoreOptions& options);
// The same token by token, `together` sequences at a time in lockstep.
Result<TokenScores> decode_scores(Model& model, std::span<const TokenBatch> batches, int64_t together,
                                  const ScoreOptions& options);

// A mean over predictions with its standard error over sequences.
struct Estimate {
  double value = 0;           // NaN: no predictions
  double standard_error = 0;  // NaN: fewer than two sequences
  int64_t sequences = 0, targets = 0;
};
// sum / count over all sequences, where sequence i contributes sums[i] of counts[i] predictions. The standard error is
// that of a ratio of means (Cochran, Sampling Techniques, 1977, 6.4): sequences are drawn independently, predictions
// within one are not. With equal counts it is the usual deviation / sqrt(n). Sequences that count nothing are left out.
Estimate ratio_of_means(std::span<const double> sums, std::span<const int64_t> counts);
// Over positions [begin, end) of every sequence.
Estimate mean_loss(const TokenScores& scores, int64_t begin, int64_t end);
Estimate mean_accuracy(const TokenScores& scores, int64_t begin, int64_t end);
// Of loss less other_loss. Its error is that of the differences, far below those of the two losses.
Estimate mean_loss_difference(const TokenScores& scores, int64_t begin, int64_t end);

// Expected accuracy of a guess that knows what stands in the sequence up to the question but not what belongs to it:
// one of the `answers` seen so far, each as likely as it is frequent.
Estimate context_chance(std::span<const TokenBatch> batches, TokenRange answers);

}  // namespace rat
