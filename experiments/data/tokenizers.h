// Which tokenizer a run's ids belong to. Needs the tokenizer's file, not the data: a run whose data are gone can still
// be asked about typed text.
#pragma once

#include <memory>

#include "core/tokenizer.h"
#include "experiments/data/data_source.h"

namespace rat {

// Bytes for text, the SentencePiece model where data.tokenizer names one; null where ids are numbers (tasks, a token
// file without a tokenizer). A model whose vocabulary differs is refused with both numbers.
Result<std::shared_ptr<const Tokenizer>> tokenizer_of(const DataConfig& data, const ModelConfig& model);
// data.tokenizer only where it means something.
Status validate_tokenizer(const DataConfig& data);

}  // namespace rat
