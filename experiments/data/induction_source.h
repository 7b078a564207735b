// Induction (Olsson et al., arXiv:2209.11895): when a symbol comes back, what followed it the last time follows again.
//
//   inputs   a c b d a c c b d d
//   targets  . . . . c . . d . .        (. = ignore_target)
//
// Every symbol is drawn in three ways: where the symbol before it has been seen, with probability 1/2 it is what
// followed then, and this is asked for; otherwise a symbol seen anywhere before, or any symbol, with equal chances. So
// what is asked for lies any number of tokens back. Token ids: 0 unused; 1 .. V-1 symbols. Every sequence asks at
// least once.
#pragma once

#include <memory>

#include "experiments/data/data_source.h"

namespace rat {

Status validate_induction(const DataConfig& data, const ModelConfig& model, int64_t seq_len);
Result<std::unique_ptr<DataSource>> open_induction(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                                   uint64_t seed, const StopFlag* stop);

}  // namespace rat
