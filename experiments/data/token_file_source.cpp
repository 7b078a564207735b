// Token files: raw little-endian uint16 ids, one after the other, as the published training code writes them (numpy
// memmap of uint16). data.tokenizer, if given, only says how ids are shown and how typed text is encoded.
#include <span>

#include "experiments/data/byte_stream.h"
#include "experiments/data/data_kinds.h"
#include "experiments/data/stream_source.h"
#include "experiments/data/tokenizers.h"

namespace rat {
namespace {

// Blocks begin at even offsets: ByteStream hands out whole mebibytes.
Status check_ids(const std::string& path, int64_t vocab, uint64_t offset, std::span<const char> bytes) {
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) {
    const int id = static_cast<unsigned char>(bytes[i]) | static_cast<unsigned char>(bytes[i + 1]) << 8;
    if (id >= vocab)
      return fail(ErrorCode::invalid_argument,
                  "{} has the token {} at byte {}, but model.vocab is {}; set model.vocab to that of the tokenizer "
                  "that made the file",
                  path, id, offset + i, vocab);
  }
  return ok();
}

Status validate_token_file(const DataConfig& data, const ModelConfig&, int64_t) {
  if (data.path.empty() || data.path == "-")
    return fail(ErrorCode::invalid_argument, "data.path is {}; name a file of uint16 token ids",
                data.path.empty() ? "empty" : "'-'");
  return validate_split(data);
}

Result<std::unique_ptr<DataSource>> open_token_file(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                                    uint64_t seed, const StopFlag* stop) {
  RAT_ASSIGN(std::shared_ptr<const Tokenizer> tokenizer, tokenizer_of(data, model));
  RAT_ASSIGN(const RegularFile file, RegularFile::open(data.path));
  if (file.size() % 2 != 0)
    return fail(ErrorCode::corrupt_data,
                "{} has {} bytes, an odd number; token files hold two bytes for each token and nothing else", data.path,
                file.size());
  RAT_ASSIGN(ByteStream bytes, ByteStream::from_files({data.path}, stop, ByteStream::memory_limit,
                                                      [&](uint64_t offset, std::span<const char> block) {
                                                        return check_ids(data.path, model.vocab, offset, block);
                                                      }));
  TokenStream stream;
  stream.hash = bytes.hash();
  stream.bytes = std::move(bytes);
  stream.width = 2;
  stream.description = tokenizer ? fmt::format("{} ({})", data.path, tokenizer->name()) : data.path;
  stream.unit = "tokens";
  stream.vocab = model.vocab;
  stream.tokenizer = std::move(tokenizer);
  return make_stream_source(std::move(stream), data.validation_fraction, seq_len, seed);
}

}  // namespace

const DataKind& token_file_data() {
  static const DataKind kind{"tokens",
                             "Token file",
                             "A file of raw little-endian uint16 token ids, as the published training code writes them.",
                             DataFiles::tokens,
                             32000,
                             {},
                             validate_token_file,
                             open_token_file};
  return kind;
}

}  // namespace rat
