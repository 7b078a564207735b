#include "views/canvases/token_text.h"

#include <fmt/format.h>

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

std::string token_text(int32_t token, bool byte_tokens) {
  if (!byte_tokens) return fmt::format("{}", token);
  if (token == ' ') return open_box;
  return printable(token) ? std::string(1, static_cast<char>(token)) : escaped(token);
}

namespace {

std::string join(std::span<const int32_t> tokens, bool byte_tokens, bool keep_layout) {
  std::string out;
  for (std::size_t i = 0; i < tokens.size();) {
    if (!byte_tokens) {
      out += fmt::format("{}{}", i == 0 ? "" : " ", tokens[i]);
      ++i;
      continue;
    }
    const int length = utf8_length(tokens, i);
    const int32_t byte = tokens[i];
    const bool layout = byte == ' ' || (keep_layout && (byte == '\n' || byte == '\t'));
    if (length > 1 && !(byte == 0xc2 && tokens[i + 1] < 0xa0)) {  // not the C1 control characters
      for (int k = 0; k < length; ++k) out += static_cast<char>(tokens[i + static_cast<std::size_t>(k)]);
      i += static_cast<std::size_t>(length);
      continue;
    }
    out += layout || printable(byte) ? std::string(1, static_cast<char>(byte)) : escaped(byte);
    ++i;
  }
  return out;
}

}  // namespace

std::string span_text(std::span<const int32_t> tokens, bool byte_tokens) { return join(tokens, byte_tokens, false); }
std::string running_text(std::span<const int32_t> tokens, bool byte_tokens) { return join(tokens, byte_tokens, true); }

std::string quoted_token(int32_t token, bool byte_tokens) {
  return byte_tokens ? "\xe2\x80\x9c" + token_text(token, true) + "\xe2\x80\x9d" : token_text(token, false);
}

std::string widest_token(int64_t vocab, bool byte_tokens) {
  return byte_tokens ? quoted_token(0xdd, true) : std::string(fmt::format("{}", vocab > 1 ? vocab - 1 : 8).size(), '8');
}

std::string tail_text(std::span<const int32_t> tokens, bool byte_tokens, std::size_t most) {
  std::string best;
  for (std::size_t count = 1; count <= tokens.size() && count <= most; ++count) {
    std::string text = span_text(tokens.last(count), byte_tokens);
    if (text.size() > most) break;
    best = std::move(text);
  }
  return best;
}

}  // namespace rat::views
