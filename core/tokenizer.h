// Text to token ids and back. Ids without text (mqar, a token file alone) have no tokenizer: they are shown as numbers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/status.h"

namespace rat {

// Immutable; any thread may call.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string name() const = 0;  // "bytes", "SentencePiece llama.model"
  virtual std::string hash() const = 0;  // SHA-256 of the model file; empty for bytes
  virtual int64_t vocab() const = 0;     // ids are below this
  virtual bool is_bytes() const { return false; }
  virtual Result<std::vector<int32_t>> encode(std::string_view text) const = 0;
  // The bytes that `token` adds to running text, maybe a part of a character; empty for control symbols and for ids
  // outside the vocabulary.
  virtual std::string bytes_of(int32_t token) const = 0;
  // What a token without text is called: "<s>", "<unk>", "<32000>"; empty for all others.
  virtual std::string symbol(int32_t token) const = 0;
};

std::string running_bytes(const Tokenizer& tokenizer, std::span<const int32_t> tokens);
// Token id = byte value, whatever the encoding.
std::shared_ptr<const Tokenizer> byte_tokenizer();

}  // namespace rat
