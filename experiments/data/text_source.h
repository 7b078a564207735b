// Bytes of text as tokens: token id = byte value, whatever the encoding.
//
// Split: the stream is all files in sorted order, one after the other. Its last `validation_fraction` (at least one
// sequence) is the validation part. A training sequence reads bytes s .. s+T (inputs and targets) and lies wholly
// before the first validation byte; a validation sequence lies wholly behind it. So no byte is ever on both sides.
#pragma once

#include <memory>

#include "experiments/data/data_source.h"

namespace rat {

Status validate_text(const DataConfig& data, const ModelConfig& model, int64_t seq_len);
Result<std::unique_ptr<DataSource>> open_text(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                              uint64_t seed, const StopFlag* stop);

}  // namespace rat
