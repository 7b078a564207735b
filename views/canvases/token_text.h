// Tokens as text a person can read: printable characters as they are, everything else escaped, never lost.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace rat::views {

// One token. Bytes: "a", "\n", "\xe2"; a space is drawn as an open box. Other vocabularies: the number.
std::string token_text(int32_t token, bool byte_tokens);
// The token between quotes, for read-outs: “a”, “\\n”; numbers stay as they are.
std::string quoted_token(int32_t token, bool byte_tokens);
// The widest text quoted_token makes for this vocabulary: read-outs keep that much room.
std::string widest_token(int64_t vocab, bool byte_tokens);
// The end of `tokens` as at most `most` characters of span_text.
std::string tail_text(std::span<const int32_t> tokens, bool byte_tokens, std::size_t most);
// A stretch of tokens as one line. Bytes that form valid UTF-8 are joined to characters; numbers are separated by
// spaces.
std::string span_text(std::span<const int32_t> tokens, bool byte_tokens);
// The same as running text for reading, line breaks and tabs kept; only invalid bytes are escaped.
std::string running_text(std::span<const int32_t> tokens, bool byte_tokens);
// Length of the valid UTF-8 sequence at `at` (1 to 4), 0 when the byte there starts none.
int utf8_length(std::span<const int32_t> tokens, std::size_t at);

}  // namespace rat::views
