// Tokens as text: pieces of a tokenizer beside bytes and numbers.
#include <gtest/gtest.h>

#include "views/canvases/token_text.h"

namespace rat::views {
namespace {

// 0 "<s>" (control), 1 " the", 2 " fox", 3 and 4 the two bytes of "é", 5 a line break.
class Pieces final : public Tokenizer {
 public:
  std::string name() const override { return "pieces"; }
  std::string hash() const override { return ""; }
  int64_t vocab() const override { return static_cast<int64_t>(pieces_.size()); }
  Result<std::vector<int32_t>> encode(std::string_view) const override { return std::vector<int32_t>{}; }
  std::string bytes_of(int32_t token) const override {
    return token >= 0 && token < vocab() ? pieces_[static_cast<std::size_t>(token)] : "";
  }
  std::string symbol(int32_t token) const override {
    if (!bytes_of(token).empty()) return "";
    return token == 0 ? "<s>" : "<" + std::to_string(token) + ">";
  }

 private:
  std::vector<std::string> pieces_{"", " the", " fox", "\xc3", "\xa9", "\n"};
};

TEST(TokenText, PiecesAreShownAsTheirText) {
  const TokenStyle style(std::make_shared<const Pieces>());
  EXPECT_EQ(token_text(1, style), "\xe2\x90\xa3the");  // the sign for a space
  EXPECT_EQ(quoted_token(2, style),
            "\xe2\x80\x9c\xe2\x90\xa3"
            "fox\xe2\x80\x9d");
  EXPECT_EQ(token_text(0, style), "<s>");
  EXPECT_EQ(token_text(5, style), "\\n");
  EXPECT_EQ(token_text(3, style), "\\xc3");  // half a character
  EXPECT_EQ(token_text(99, style), "<99>");
}

TEST(TokenText, PiecesOfOneCharacterAreJoined) {
  const TokenStyle style(std::make_shared<const Pieces>());
  const std::vector<int32_t> tokens{1, 2, 3, 4, 5, 0};
  EXPECT_EQ(running_text(tokens, style), " the fox\xc3\xa9\n<s>");
  EXPECT_EQ(span_text(tokens, style), " the fox\xc3\xa9\\n<s>");
  EXPECT_EQ(tail_text(std::span(tokens).first(2), style, 5), " fox");
}

TEST(TokenText, ATraceKnowsItsStyle) {
  TraceSnapshot trace;
  EXPECT_TRUE(style_of(trace).bytes());
  trace.byte_tokens = false;
  EXPECT_TRUE(style_of(trace).numbers());
  EXPECT_EQ(token_text(65, style_of(trace)), "65");
  trace.tokenizer = std::make_shared<const Pieces>();
  EXPECT_FALSE(style_of(trace).numbers());
  EXPECT_EQ(token_text(2, style_of(trace)),
            "\xe2\x90\xa3"
            "fox");
}

}  // namespace
}  // namespace rat::views
