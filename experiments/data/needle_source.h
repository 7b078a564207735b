// Needle in a haystack: key-value pairs hidden in noise, asked for at the end of the sequence.
//
//   inputs   n2 n7 k3 v9 n1 n1 n8 k7 v2 n4 n2 | k7 k3
//   targets  .  .  .  .  .  .  .  .  .  .  .  | v2 v9     (. = ignore_target)
//
// `pairs` pairs lie at random places that do not overlap; the last `queries` tokens are keys of pairs. The last query
// asks for the needle, whose place is uniform in training and fixed when accuracy is measured by depth. The retrieval
// tests of RULER (Hsieh et al., arXiv:2404.06654) in the form that a model of any size can be trained on.
// Token ids: 0 unused; 1 .. K keys; K+1 .. 2K values, K = (V-1)/4; the rest noise. Keys of a sequence are distinct.
#pragma once

#include <memory>

#include "experiments/data/data_source.h"

namespace rat {

// Where the key of a needle at `depth` stands: 0 is the first token, 1 the last place before the queries.
int64_t needle_place(const DataConfig& data, int64_t seq_len, double depth);
// `count` validation sequences, the first of them number `row`, whose last token asks for the pair at `place`. Only
// that token has a target. The settings are valid ones.
TokenBatch needle_sequences(const DataConfig& data, int64_t vocab, int64_t seq_len, int64_t place, int64_t row,
                            int64_t count);

}  // namespace rat
