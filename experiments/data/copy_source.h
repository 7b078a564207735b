// Copying (Jelassi et al., arXiv:2402.01032): a random string, a separator, and the string once more.
//
//   inputs   a d b | a d .        a, b, c, d: symbols; | separator; . filler
//   targets  . . . a d b .        (. = ignore_target)
//
// The string has n symbols, n uniform in ceil(N/2) .. N, so that no fixed distance solves the task; N is `span`, or
// half of the sequence when that is 0. Token ids: 0 filler; 1 separator; 2 .. V-1 symbols, drawn with repetition.
#pragma once

#include <memory>

#include "experiments/data/data_source.h"

namespace rat {

Status validate_copy(const DataConfig& data, const ModelConfig& model, int64_t seq_len);
Result<std::unique_ptr<DataSource>> open_copy(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                              uint64_t seed, const StopFlag* stop);

}  // namespace rat
