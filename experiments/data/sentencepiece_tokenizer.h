// Tokenizers of the SentencePiece library: the `.model` file of Llama-2 (32,000 pieces, bytes as fallback) and others.
#pragma once

#include <filesystem>
#include <memory>

#include "core/tokenizer.h"

namespace rat {

Result<std::shared_ptr<const Tokenizer>> open_sentencepiece(const std::filesystem::path& model);

}  // namespace rat
