#include "experiments/data/text_source.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "build_info.h"
#include "experiments/data/byte_stream.h"
#include "experiments/data/random_stream.h"

namespace rat {
namespace {

constexpr int64_t byte_vocab = 256;

class TextSource final : public DataSource {
 public:
  TextSource(ByteStream stream, std::string description, uint64_t train_end, int64_t seq_len, uint64_t seed)
      : stream_(std::move(stream)),
        description_(std::move(description)),
        train_end_(train_end),
        seq_len_(seq_len),
        seed_(seed) {}

  Result<TokenBatch> train_batch(int64_t step, int64_t batch) const override {
    RAT_CHECK(step >= 0 && batch >= 1, "steps count from 0 and a batch holds a sequence");
    std::vector<uint64_t> starts;
    for (int64_t row = 0; row < batch; ++row) {
      RandomStream random{seed_, static_cast<uint64_t>(step), static_cast<uint64_t>(row)};
      starts.push_back(random.below(train_end_ - static_cast<uint64_t>(seq_len_)));  // the last byte read is start + T
    }
    return read_sequences(starts);
  }

  // Evenly spread over the validation part, without overlap.
  Result<std::vector<TokenBatch>> validation(int64_t batch, int64_t max_tokens) const override {
    RAT_CHECK(batch >= 1, "a batch holds a sequence");
    const uint64_t T = static_cast<uint64_t>(seq_len_);
    const uint64_t room = stream_.size() - train_end_ - 1;  // positions that have a target
    const uint64_t sequences =
        std::clamp<uint64_t>(static_cast<uint64_t>(std::max<int64_t>(max_tokens, 0)) / T, 1, room / T);
    const uint64_t stride = sequences > 1 ? (room - T) / (sequences - 1) : 0;
    std::vector<TokenBatch> batches;
    for (uint64_t first = 0; first < sequences; first += static_cast<uint64_t>(batch)) {
      std::vector<uint64_t> starts;
      for (uint64_t i = first; i < std::min(sequences, first + static_cast<uint64_t>(batch)); ++i)
        starts.push_back(train_end_ + i * stride);
      RAT_ASSIGN(TokenBatch tokens, read_sequences(starts));
      batches.push_back(std::move(tokens));
    }
    return batches;
  }

  Result<std::vector<int32_t>> probe_tokens(int64_t n) const override {
    const uint64_t available = stream_.size() - train_end_;
    std::vector<char> bytes(std::min<uint64_t>(static_cast<uint64_t>(std::max<int64_t>(n, 0)), available));
    RAT_TRY(stream_.read(train_end_, bytes));
    std::vector<int32_t> tokens(bytes.size());
    std::ranges::transform(bytes, tokens.begin(), token_of);
    return tokens;
  }

  std::string hash() const override { return stream_.hash(); }
  std::string description() const override { return description_; }
  int64_t vocab() const override { return byte_vocab; }
  bool byte_tokens() const override { return true; }

 private:
  static int32_t token_of(char byte) { return static_cast<unsigned char>(byte); }

  Result<TokenBatch> read_sequences(const std::vector<uint64_t>& starts) const {
    TokenBatch result{.batch = static_cast<int64_t>(starts.size()), .tokens = seq_len_, .inputs = {}, .targets = {}};
    std::vector<char> bytes(static_cast<std::size_t>(seq_len_) + 1);
    for (const uint64_t start : starts) {
      RAT_TRY(stream_.read(start, bytes));
      std::transform(bytes.begin(), bytes.end() - 1, std::back_inserter(result.inputs), token_of);
      std::transform(bytes.begin() + 1, bytes.end(), std::back_inserter(result.targets), token_of);
    }
    return result;
  }

  ByteStream stream_;
  std::string description_;
  uint64_t train_end_;  // first byte of the validation part
  int64_t seq_len_;
  uint64_t seed_;
};

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

}  // namespace

Status validate_text(const DataConfig& data, const ModelConfig& model, int64_t) {
  if (!(data.validation_fraction > 0 && data.validation_fraction < 1))
    return fail(ErrorCode::invalid_argument,
                "data.validation_fraction is {}; use a number between 0 and 1, such as 0.1", data.validation_fraction);
  if (model.vocab < byte_vocab)
    return fail(ErrorCode::invalid_argument, "model.vocab is {}; text is read as bytes and needs {}", model.vocab,
                byte_vocab);
  return ok();
}

Result<std::unique_ptr<DataSource>> open_text(const DataConfig& data, const ModelConfig&, int64_t seq_len,
                                              uint64_t seed, const StopFlag* stop) {
  RAT_ASSIGN(Opened opened, open_stream(data.path, stop));
  const uint64_t size = opened.stream.size();
  const uint64_t sequence = static_cast<uint64_t>(seq_len) + 1;  // inputs and the last target
  if (size == 0)
    return fail(ErrorCode::invalid_argument, "The data, {}, is empty; give it some text", opened.description);
  if (size / 2 < sequence)
    return fail(ErrorCode::invalid_argument,
                "The data, {}, has {} bytes, too few for one training and one validation sequence of "
                "seq_len {} ({} bytes); use a shorter seq_len or more text",
                opened.description, size, seq_len, 2 * sequence);
  const uint64_t wanted = static_cast<uint64_t>(std::llround(data.validation_fraction * static_cast<double>(size)));
  const uint64_t validation = std::clamp(wanted, sequence, size - sequence);
  std::string description =
      fmt::format("{}: {} bytes, the last {} for validation", opened.description, size, validation);
  std::unique_ptr<DataSource> source =
      std::make_unique<TextSource>(std::move(opened.stream), std::move(description), size - validation, seq_len, seed);
  return source;
}

}  // namespace rat
