#include "views/canvases/token_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

namespace rat::views {
namespace {

constexpr const char* open_box = "\xe2\x90\xa3";  // U+2423, the sign for a space

bool is_continuation(int32_t byte) { return byte >= 0x80 && byte <= 0xbf; }

std::string escaped(int32_t byte) {
  switch (byte) {
    case '\n':
      return "\\n";
    case '\t':
      return "\\t";
    case '\r':
      return "\\r";
    case 0:
      return "\\0";
    default:
      return byte >= 0 && byte <= 255 ? fmt::format("\\x{:02x}", byte) : fmt::format("<{}>", byte);
  }
}

bool printable(int32_t byte) { return byte > 0x20 && byte < 0x7f; }

}  // namespace

int utf8_length(std::span<const int32_t> tokens, std::size_t at) {
  const int32_t first = tokens[at];
  if (first >= 0 && first < 0x80) return 1;
  const int length = first >= 0xc2 && first <= 0xdf   ? 2
                     : first >= 0xe0 && first <= 0xef ? 3
                     : first >= 0xf0 && first <= 0xf4 ? 4
                                                      : 0;
  if (length == 0 || at + static_cast<std::size_t>(length) > tokens.size()) return 0;
  for (int i = 1; i < length; ++i)
    if (!is_continuation(tokens[at + static_cast<std::size_t>(i)])) return 0;
  const int32_t second = tokens[at + 1];
  const bool overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
  const bool outside = (first == 0xed && second > 0x9f) || (first == 0xf4 && second > 0x8f);  // surrogates, > U+10FFFF
  return overlong || outside ? 0 : length;
}

TokenStyle style_of(const TraceSnapshot& trace) {
  return trace.tokenizer ? TokenStyle(trace.tokenizer) : TokenStyle(trace.byte_tokens);
}

namespace {

// The bytes of the tokens as ids of bytes; symbols by their names.
std::vector<int32_t> bytes_of(std::span<const int32_t> tokens, const Tokenizer& tokenizer) {
  std::vector<int32_t> bytes;
  for (const int32_t token : tokens) {
    const std::string text = tokenizer.bytes_of(token);
    for (const char c : text.empty() ? tokenizer.symbol(token) : text) bytes.push_back(static_cast<unsigned char>(c));
  }
  return bytes;
}

std::string join_bytes(std::span<const int32_t> bytes, bool keep_layout) {
  std::string out;
  for (std::size_t i = 0; i < bytes.size();) {
    const int length = utf8_length(bytes, i);
    const int32_t byte = bytes[i];
    const bool layout = byte == ' ' || (keep_layout && (byte == '\n' || byte == '\t'));
    if (length > 1 && !(byte == 0xc2 && bytes[i + 1] < 0xa0)) {  // not the C1 control characters
      for (int k = 0; k < length; ++k) out += static_cast<char>(bytes[i + static_cast<std::size_t>(k)]);
      i += static_cast<std::size_t>(length);
      continue;
    }
    out += layout || printable(byte) ? std::string(1, static_cast<char>(byte)) : escaped(byte);
    ++i;
  }
  return out;
}

std::string join(std::span<const int32_t> tokens, const TokenStyle& style, bool keep_layout) {
  if (style.numbers()) return fmt::format("{}", fmt::join(tokens, " "));
  if (style.bytes()) return join_bytes(tokens, keep_layout);
  return join_bytes(bytes_of(tokens, *style.tokenizer), keep_layout);
}

}  // namespace

std::string token_text(int32_t token, const TokenStyle& style) {
  if (style.numbers()) return fmt::format("{}", token);
  if (style.bytes()) {
    if (token == ' ') return open_box;
    return printable(token) ? std::string(1, static_cast<char>(token)) : escaped(token);
  }
  std::string text = join_bytes(bytes_of({&token, 1}, *style.tokenizer), false);
  for (std::size_t at = 0; (at = text.find(' ', at)) != std::string::npos;) text.replace(at, 1, open_box);
  return text;
}

std::string span_text(std::span<const int32_t> tokens, const TokenStyle& style) { return join(tokens, style, false); }
std::string running_text(std::span<const int32_t> tokens, const TokenStyle& style) { return join(tokens, style, true); }

std::string quoted_token(int32_t token, const TokenStyle& style) {
  const std::string text = token_text(token, style);
  return style.numbers() ? text : "\xe2\x80\x9c" + text + "\xe2\x80\x9d";
}

std::string widest_token(int64_t vocab, const TokenStyle& style) {
  if (style.numbers()) return std::string(fmt::format("{}", vocab > 1 ? vocab - 1 : 8).size(), '8');
  if (style.bytes()) return quoted_token(0xdd, true);
  return "\xe2\x80\x9c" + std::string(16, 'n') + "\xe2\x80\x9d";  // most pieces; a longer one pushes what follows
}

std::string tail_text(std::span<const int32_t> tokens, const TokenStyle& style, std::size_t most) {
  std::string best;
  for (std::size_t count = 1; count <= tokens.size() && count <= most; ++count) {
    std::string text = span_text(tokens.last(count), style);
    if (text.size() > most) break;
    best = std::move(text);
  }
  return best;
}

}  // namespace rat::views
