// Multi-query associative recall (Arora et al., Zoology, arXiv:2312.04927): the sequence opens with `pairs` key-value
// pairs, then keys come back at random places, and only there the value has to be predicted.
//
//   inputs   k3 v9 k7 v2 k1 v5 | .  .  k7 .  .  k3 .
//   targets  .  .  .  .  .  .  | .  .  v2 .  .  v9 .      (. = filler in inputs, ignore_target in targets)
//
// Token ids: 0 filler; 1 .. K keys; K+1 .. V-1 values, K = (V-1)/2. Keys within a sequence are distinct; each query is
// a key drawn uniformly, so with more queries than pairs keys repeat. Recall accuracy is correct / targets.
#pragma once

#include <memory>

#include "experiments/data/data_source.h"

namespace rat {

Status validate_mqar(const DataConfig& data, const ModelConfig& model, int64_t seq_len);
Result<std::unique_ptr<DataSource>> open_mqar(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                              uint64_t seed, const StopFlag* stop);

}  // namespace rat
