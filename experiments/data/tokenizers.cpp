#include "experiments/data/tokenizers.h"

#include "experiments/data/sentencepiece_tokenizer.h"

namespace rat {

Result<std::shared_ptr<const Tokenizer>> tokenizer_of(const DataConfig& data, const ModelConfig& model) {
  if (data.tokenizer.empty()) return data.kind == "text" ? byte_tokenizer() : nullptr;
  RAT_ASSIGN(std::shared_ptr<const Tokenizer> tokenizer, open_sentencepiece(data.tokenizer));
  if (tokenizer->vocab() == model.vocab) return tokenizer;
  return fail(ErrorCode::invalid_argument,
              "The tokenizer {} has {} pieces, but model.vocab is {}; the two must be equal, so set model.vocab={} or "
              "choose the tokenizer the model was trained with",
              data.tokenizer, tokenizer->vocab(), model.vocab, tokenizer->vocab());
}

Status validate_tokenizer(const DataConfig& data) {
  if (data.tokenizer.empty() || data.kind == "text" || data.kind == "tokens") return ok();
  return fail(ErrorCode::invalid_argument, "data.tokenizer means nothing to '{}', whose tokens are not text; remove it",
              data.kind);
}

}  // namespace rat
