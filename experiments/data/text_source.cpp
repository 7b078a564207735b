#include "experiments/data/text_source.h"

#include <unistd.h>

#include <utility>

#include "build_info.h"
#include "core/io/sha256.h"
#include "experiments/data/byte_stream.h"
#include "experiments/data/data_kinds.h"
#include "experiments/data/stream_source.h"
#include "experiments/data/tokenizers.h"

namespace rat {
namespace {

constexpr int64_t byte_vocab = 256;

struct Opened {
  ByteStream stream;
  std::string description;
};

std::string skipped_text(const FileSelection& selection) {
  std::vector<std::string> parts;
  if (selection.binary) parts.push_back(fmt::format("{} binary", selection.binary));
  if (selection.unreadable) parts.push_back(fmt::format("{} unreadable", selection.unreadable));
  if (selection.hidden) parts.push_back(fmt::format("{} hidden, build or linked", selection.hidden));
  return parts.empty() ? "nothing skipped" : fmt::format("skipped {}", fmt::join(parts, ", "));
}

Result<Opened> open_stream(const std::string& path, const StopFlag* stop) {
  if (path == "-") {
    RAT_ASSIGN(ByteStream stream, ByteStream::from_descriptor(STDIN_FILENO, stop));
    return Opened{std::move(stream), "standard input"};
  }
  RAT_ASSIGN(const FileSelection selection,
             path.empty() ? select_source_tree(build_info::source_dir) : select_files(path));
  RAT_ASSIGN(ByteStream stream, ByteStream::from_files(selection.files, stop));
  const bool one_file = selection.files.size() == 1 && selection.files.front() == path;
  if (one_file) return Opened{std::move(stream), path};
  return Opened{std::move(stream),
                fmt::format("{} ({} files, {})", path.empty() ? "the program's own source tree" : path,
                            selection.files.size(), skipped_text(selection))};
}

Result<TokenStream> as_pieces(Opened opened, std::shared_ptr<const Tokenizer> tokenizer, const StopFlag* stop) {
  if (opened.stream.size() == 0)
    return fail(ErrorCode::invalid_argument, "The data, {}, is empty; give it some text", opened.description);
  RAT_ASSIGN(ByteStream tokens, tokenize(opened.stream, *tokenizer, stop));
  TokenStream stream;
  stream.bytes = std::move(tokens);
  stream.width = 2;
  stream.description = fmt::format("{} ({} bytes) as {} ({} pieces)", opened.description, opened.stream.size(),
                                   tokenizer->name(), tokenizer->vocab());
  stream.unit = "tokens";
  stream.hash = sha256_hex(fmt::format("text {} tokenizer {}", opened.stream.hash(), tokenizer->hash()));
  stream.vocab = tokenizer->vocab();
  stream.tokenizer = std::move(tokenizer);
  return stream;
}

Status validate_text(const DataConfig& data, const ModelConfig& model, int64_t) {
  RAT_TRY(validate_split(data));
  if (data.tokenizer.empty() && model.vocab < byte_vocab)
    return fail(ErrorCode::invalid_argument, "model.vocab is {}; text is read as bytes and needs {}", model.vocab,
                byte_vocab);
  return ok();
}

Result<std::unique_ptr<DataSource>> open_text(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                              uint64_t seed, const StopFlag* stop) {
  RAT_ASSIGN(const std::shared_ptr<const Tokenizer> tokenizer, tokenizer_of(data, model));
  RAT_ASSIGN(Opened opened, open_stream(data.path, stop));
  TokenStream stream;
  if (tokenizer->is_bytes()) {
    const std::string hash = opened.stream.hash();
    stream = {std::move(opened.stream), 1, std::move(opened.description), "bytes", hash, byte_vocab, tokenizer};
  } else {
    RAT_ASSIGN(stream, as_pieces(std::move(opened), tokenizer, stop));
  }
  return make_stream_source(std::move(stream), data.validation_fraction, seq_len, seed);
}

}  // namespace

const DataKind& text_data() {
  static const DataKind kind{"text",
                             "Text",
                             "Text as bytes, or as the pieces of a tokenizer; without a path, the program's own source.",
                             DataFiles::text,
                             256,
                             {},
                             validate_text,
                             open_text};
  return kind;
}

Status encode_ahead(const DataConfig& data, const ModelConfig& model, const StopFlag* stop,
                    const EncodingProgress& progress) {
  if (data.kind != "text" || data.tokenizer.empty() || data.path == "-") return ok();
  RAT_ASSIGN(const std::shared_ptr<const Tokenizer> tokenizer, tokenizer_of(data, model));
  RAT_ASSIGN(const Opened opened, open_stream(data.path, stop));
  if (opened.stream.size() <= small_text) return ok();
  RAT_TRY(tokenize(opened.stream, *tokenizer, stop, progress));
  return ok();
}

}  // namespace rat
