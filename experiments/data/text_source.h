// Text as tokens. Without data.tokenizer: token id = byte value, whatever the encoding. With it: the pieces of a
// SentencePiece model (experiments/data/tokenized_text.h). The stream is all files in sorted order, one after the
// other; how it is split is said in experiments/data/stream_source.h.
#pragma once

#include <memory>

#include "experiments/data/data_source.h"
#include "experiments/data/tokenized_text.h"

namespace rat {

// Encodes a long text ahead of `open_text`, which then finds the tokens in the cache: so that a command can show how
// far it is. Nothing to do for bytes, short texts and standard input.
Status encode_ahead(const DataConfig& data, const ModelConfig& model, const StopFlag* stop,
                    const EncodingProgress& progress);

}  // namespace rat
