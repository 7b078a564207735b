#include "experiments/data/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <charconv>

#include "core/io/file_hash.h"
#include "core/io/sha256.h"

namespace rat {
namespace {

constexpr uint64_t max_model_bytes = uint64_t{64} << 20;
constexpr std::string_view space_mark = "\xe2\x96\x81";  // U+2581 stands for a space inside pieces

class SentencePieceTokenizer final : public Tokenizer {
 public:
  static Result<std::shared_ptr<const Tokenizer>> open(const std::filesystem::path& path) {
    RAT_ASSIGN(const std::string bytes, read_small_file(path, max_model_bytes));
    auto tokenizer = std::make_shared<SentencePieceTokenizer>();
    const auto loaded = tokenizer->processor_.LoadFromSerializedProto(bytes);
    if (!loaded.ok() || tokenizer->processor_.GetPieceSize() < 1)
      return fail(ErrorCode::corrupt_data, "{} is not a SentencePiece model ({}); give the tokenizer's .model file",
                  path.string(), loaded.ok() ? "it has no pieces" : loaded.ToString());
    tokenizer->name_ = "SentencePiece " + path.filename().string();
    tokenizer->hash_ = sha256_hex(bytes);
    tokenizer->read_pieces();
    return std::shared_ptr<const Tokenizer>(std::move(tokenizer));
  }

  std::string name() const override { return name_; }
  std::string hash() const override { return hash_; }
  int64_t vocab() const override { return processor_.GetPieceSize(); }

  Result<std::vector<int32_t>> encode(std::string_view text) const override {
    std::vector<int> ids;
    const auto encoded = processor_.Encode({text.data(), text.size()}, &ids);
    if (!encoded.ok())
      return fail(ErrorCode::invalid_argument, "{} cannot encode the text: {}", name_, encoded.ToString());
    return std::vector<int32_t>(ids.begin(), ids.end());
  }

  std::string bytes_of(int32_t token) const override {
    return inside(token) ? bytes_[static_cast<std::size_t>(token)] : "";
  }

  std::string symbol(int32_t token) const override {
    if (!inside(token)) return fmt::format("<{}>", token);
    return bytes_of(token).empty() ? processor_.IdToPiece(token) : "";
  }

 private:
  bool inside(int32_t token) const { return token >= 0 && token < static_cast<int32_t>(bytes_.size()); }

  void read_pieces() {
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      std::string piece = processor_.IdToPiece(id);
      if (processor_.IsControl(id) || processor_.IsUnknown(id) || processor_.IsUnused(id)) {
        bytes_.emplace_back();
      } else if (processor_.IsByte(id)) {  // "<0x0A>"
        unsigned value = 0;
        if (piece.size() == 6) std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
        bytes_.emplace_back(1, static_cast<char>(value));
      } else {
        for (std::size_t at = 0; (at = piece.find(space_mark, at)) != std::string::npos; ++at)
          piece.replace(at, space_mark.size(), " ");
        bytes_.push_back(std::move(piece));
      }
    }
  }

  sentencepiece::SentencePieceProcessor processor_;
  std::string name_, hash_;
  std::vector<std::string> bytes_;  // by id
};

}  // namespace

Result<std::shared_ptr<const Tokenizer>> open_sentencepiece(const std::filesystem::path& model) {
  return SentencePieceTokenizer::open(model);
}

}  // namespace rat
