// Text as tokens of a SentencePiece model. The text is read and encoded in blocks, never as a whole: a block ends
// behind the last line break within 64 KiB (where a line is longer: between two characters), so the tokens depend on
// the text and the model alone. A long text is encoded once; its tokens are kept as a token file in
// $XDG_CACHE_HOME/rat-workbench/tokens, named by the content of text and model.
#pragma once

#include <functional>

#include "core/tokenizer.h"
#include "experiments/data/byte_stream.h"

namespace rat {

inline constexpr uint64_t small_text = uint64_t{1} << 20;  // bytes; encoded at each start, without a cache

// Called now and then with how many bytes of the text are encoded.
using EncodingProgress = std::function<void(uint64_t done, uint64_t total)>;

// Raw little-endian uint16 ids.
Result<ByteStream> tokenize(const ByteStream& text, const Tokenizer& tokenizer, const StopFlag* stop,
                            const EncodingProgress& progress = {});
// Removes nothing, creates nothing: where the tokens of this text would be.
std::filesystem::path token_cache_file(const ByteStream& text, const Tokenizer& tokenizer);

}  // namespace rat
