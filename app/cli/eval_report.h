// How the result of an evaluation task is shown: as a table, as JSON, as CSV.
#pragma once

#include <string>

#include "app/cli/output.h"
#include "experiments/store/evaluation.h"

namespace rat::cli {

// Both chance levels beside the accuracy; needle: depths by lengths; loss by position: averaged over bins, which the
// heading states.
std::string evaluation_table(const Evaluation& evaluation);
// One row for a list of evaluations: what it gave at the run's own length T, `seq_len`.
std::string evaluation_headline(const Evaluation& evaluation, int64_t seq_len);
// Every stored number at full resolution. Loss, perplexity and accuracy at the run's own length stand at the top.
Json evaluation_document(const Evaluation& evaluation, int64_t seq_len);
// Heading and one line a number; `run` is the first column.
std::string evaluation_csv(const std::string& run, const std::vector<Evaluation>& evaluations);

}  // namespace rat::cli
