#include "core/tokenizer.h"

namespace rat {
namespace {

class ByteTokenizer final : public Tokenizer {
 public:
  std::string name() const override { return "bytes"; }
  std::string hash() const override { return ""; }
  int64_t vocab() const override { return 256; }
  bool is_bytes() const override { return true; }
  Result<std::vector<int32_t>> encode(std::string_view text) const override {
    std::vector<int32_t> tokens;
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }
  std::string bytes_of(int32_t token) const override {
    return token >= 0 && token < 256 ? std::string(1, static_cast<char>(token)) : "";
  }
  std::string symbol(int32_t token) const override {
    return token >= 0 && token < 256 ? "" : fmt::format("<{}>", token);
  }
};

}  // namespace

std::string running_bytes(const Tokenizer& tokenizer, std::span<const int32_t> tokens) {
  std::string text;
  for (const int32_t token : tokens) text += tokenizer.bytes_of(token);
  return text;
}

std::shared_ptr<const Tokenizer> byte_tokenizer() {
  static const auto tokenizer = std::make_shared<const ByteTokenizer>();
  return tokenizer;
}

}  // namespace rat
