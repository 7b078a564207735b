// Tokens as text a person can read: printable characters as they are, everything else escaped, never lost.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/trace/snapshot.h"

namespace rat::views {

// How ids are shown: as the text of their tokenizer, or as numbers.
struct TokenStyle {
  TokenStyle(bool bytes) : tokenizer(bytes ? byte_tokenizer() : nullptr) {}
  TokenStyle(std::shared_ptr<const Tokenizer> of) : tokenizer(std::move(of)) {}
  bool numbers() const { return !tokenizer; }
  bool bytes() const { return tokenizer && tokenizer->is_bytes(); }

  std::shared_ptr<const Tokenizer> tokenizer;
};
TokenStyle style_of(const TraceSnapshot& trace);

// One token. Bytes and pieces: "a", "\n", "\xe2", "the"; a space is drawn as an open box, a control symbol by its name.
// Numbers: the number.
std::string token_text(int32_t token, const TokenStyle& style);
// The token between quotes, for read-outs: “a”, “\\n”; numbers stay as they are.
std::string quoted_token(int32_t token, const TokenStyle& style);
// The widest text quoted_token makes for this vocabulary: read-outs keep that much room.
std::string widest_token(int64_t vocab, const TokenStyle& style);
// The end of `tokens` as at most `most` characters of span_text.
std::string tail_text(std::span<const int32_t> tokens, const TokenStyle& style, std::size_t most);
// A stretch of tokens as one line. Bytes that form valid UTF-8 are joined to characters; numbers are separated by
// spaces.
std::string span_text(std::span<const int32_t> tokens, const TokenStyle& style);
// The same as running text for reading, line breaks and tabs kept; only invalid bytes are escaped.
std::string running_text(std::span<const int32_t> tokens, const TokenStyle& style);
// Length of the valid UTF-8 sequence at `at` (1 to 4), 0 when the byte there starts none.
int utf8_length(std::span<const int32_t> tokens, std::size_t at);

}  // namespace rat::views
