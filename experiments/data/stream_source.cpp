#include "experiments/data/stream_source.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "experiments/data/random_stream.h"

namespace rat {
namespace {

class StreamSource final : public DataSource {
 public:
  StreamSource(TokenStream stream, uint64_t train_end, int64_t seq_len, uint64_t seed)
      : stream_(std::move(stream)),
        size_(stream_.bytes.size() / static_cast<uint64_t>(stream_.width)),
        train_end_(train_end),
        seq_len_(seq_len),
        seed_(seed) {}

  Result<TokenBatch> train_batch(int64_t step, int64_t batch) const override {
    RAT_CHECK(step >= 0 && batch >= 1, "steps count from 0 and a batch holds a sequence");
    std::vector<uint64_t> starts;
    for (int64_t row = 0; row < batch; ++row) {
      RandomStream random{seed_, static_cast<uint64_t>(step), static_cast<uint64_t>(row)};
      starts.push_back(random.below(train_end_ - static_cast<uint64_t>(seq_len_)));  // the last id read is start + T
    }
    return read_sequences(starts);
  }

  // Evenly spread over the validation part, without overlap.
  Result<std::vector<TokenBatch>> validation(int64_t batch, int64_t max_tokens) const override {
    RAT_CHECK(batch >= 1, "a batch holds a sequence");
    const uint64_t T = static_cast<uint64_t>(seq_len_);
    const uint64_t room = size_ - train_end_ - 1;  // positions that have a target
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
    return read_ids(train_end_, std::min<uint64_t>(static_cast<uint64_t>(std::max<int64_t>(n, 0)), size_ - train_end_));
  }

  std::string hash() const override { return stream_.hash; }
  std::string description() const override { return stream_.description; }
  int64_t vocab() const override { return stream_.vocab; }
  bool byte_tokens() const override { return stream_.tokenizer && stream_.tokenizer->is_bytes(); }
  int64_t validation_size() const override { return static_cast<int64_t>(size_ - train_end_); }
  std::shared_ptr<const Tokenizer> tokenizer() const override { return stream_.tokenizer; }

 private:
  Result<std::vector<int32_t>> read_ids(uint64_t first, uint64_t count) const {
    const auto width = static_cast<uint64_t>(stream_.width);
    std::vector<char> bytes(count * width);
    RAT_TRY(stream_.bytes.read(first * width, bytes));
    std::vector<int32_t> ids(count);
    for (uint64_t i = 0; i < count; ++i) {
      ids[i] = static_cast<unsigned char>(bytes[i * width]);
      if (width == 2) ids[i] |= static_cast<unsigned char>(bytes[i * width + 1]) << 8;
    }
    return ids;
  }

  Result<TokenBatch> read_sequences(const std::vector<uint64_t>& starts) const {
    TokenBatch result{.batch = static_cast<int64_t>(starts.size()), .tokens = seq_len_, .inputs = {}, .targets = {}};
    for (const uint64_t start : starts) {
      RAT_ASSIGN(const std::vector<int32_t> ids, read_ids(start, static_cast<uint64_t>(seq_len_) + 1));
      result.inputs.insert(result.inputs.end(), ids.begin(), ids.end() - 1);
      result.targets.insert(result.targets.end(), ids.begin() + 1, ids.end());
    }
    return result;
  }

  TokenStream stream_;
  uint64_t size_;       // ids
  uint64_t train_end_;  // first id of the validation part
  int64_t seq_len_;
  uint64_t seed_;
};

}  // namespace

Status validate_split(const DataConfig& data) {
  if (data.validation_fraction > 0 && data.validation_fraction < 1) return ok();
  return fail(ErrorCode::invalid_argument, "data.validation_fraction is {}; use a number between 0 and 1, such as 0.1",
              data.validation_fraction);
}

Result<std::unique_ptr<DataSource>> make_stream_source(TokenStream stream, double validation_fraction, int64_t seq_len,
                                                       uint64_t seed) {
  const uint64_t size = stream.bytes.size() / static_cast<uint64_t>(stream.width);
  const uint64_t sequence = static_cast<uint64_t>(seq_len) + 1;  // inputs and the last target
  if (size == 0)
    return fail(ErrorCode::invalid_argument, "The data, {}, is empty; give it some text", stream.description);
  if (size / 2 < sequence)
    return fail(ErrorCode::invalid_argument,
                "The data, {}, has {} {}, too few for one training and one validation sequence of "
                "seq_len {} ({} {}); use a shorter seq_len or more text",
                stream.description, size, stream.unit, seq_len, 2 * sequence, stream.unit);
  const uint64_t wanted = static_cast<uint64_t>(std::llround(validation_fraction * static_cast<double>(size)));
  const uint64_t validation = std::clamp(wanted, sequence, size - sequence);
  stream.description =
      fmt::format("{}: {} {}, the last {} for validation", stream.description, size, stream.unit, validation);
  std::unique_ptr<DataSource> source =
      std::make_unique<StreamSource>(std::move(stream), size - validation, seq_len, seed);
  return source;
}

}  // namespace rat
