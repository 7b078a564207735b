// Token files: raw little-endian uint16 ids, one after the other, as the published training code writes them (numpy
// memmap of uint16). data.tokenizer, if given, only says how ids are shown and how typed text is encoded.
#pragma once

#include <memory>

#include "experiments/data/data_source.h"

namespace rat {

Status validate_token_file(const DataConfig& data, const ModelConfig& model, int64_t seq_len);
// Reads the file once, to hash it and to find ids outside the vocabulary; then by position, never as a whole.
Result<std::unique_ptr<DataSource>> open_token_file(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                                    uint64_t seed, const StopFlag* stop);

}  // namespace rat
