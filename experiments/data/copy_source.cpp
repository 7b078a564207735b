// Copying (Jelassi et al., arXiv:2402.01032): a random string, a separator, and the string once more.
//
//   inputs   a d b | a d .        a, b, c, d: symbols; | separator; . filler
//   targets  . . . a d b .        (. = ignore_target)
//
// The string has n symbols, n uniform in ceil(N/2) .. N, so that no fixed distance solves the task; N is `span`, or
// half of the sequence when that is 0. Token ids: 0 filler; 1 separator; 2 .. V-1 symbols, drawn with repetition.
#include "experiments/data/data_kinds.h"
#include "experiments/data/generated_source.h"

namespace rat {
namespace {

constexpr int32_t separator = 1, first_symbol = 2;

class CopySource final : public GeneratedSource {
 public:
  CopySource(const DataConfig& data, int64_t vocab, int64_t seq_len, uint64_t seed)
      : GeneratedSource(vocab, seq_len, seed), longest_(data.span > 0 ? data.span : seq_len / 2) {}

  std::string description() const override {
    return fmt::format("copy: strings of {} to {} of {} symbols in {} tokens", shortest(), longest_, symbols(),
                       seq_len());
  }
  TokenRange answers() const override { return {first_symbol, symbols()}; }

 private:
  int64_t symbols() const { return vocab() - first_symbol; }
  int64_t shortest() const { return (longest_ + 1) / 2; }
  std::string settings() const override { return fmt::format("copy 1: span {}", longest_); }

  void make(RandomStream& random, std::span<int32_t> inputs, std::span<int32_t> targets) const override {
    const int64_t n = shortest() + draw_below(random, longest_ - shortest() + 1);
    for (int64_t i = 0; i < n; ++i) inputs[i] = static_cast<int32_t>(first_symbol + draw_below(random, symbols()));
    inputs[n] = separator;
    for (int64_t i = 0; i < n; ++i) {
      targets[n + i] = inputs[i];
      if (i + 1 < n) inputs[n + 1 + i] = inputs[i];
    }
  }

  int64_t longest_;  // N
};

Status validate_copy(const DataConfig& data, const ModelConfig& model, int64_t seq_len) {
  if (data.span < 0)
    return fail(ErrorCode::invalid_argument, "data.span is {}; use 1 or more, or 0 for half of the sequence",
                data.span);
  if (seq_len < 2 || data.span > seq_len / 2)
    return fail(ErrorCode::invalid_argument,
                "copy of up to {} symbols does not fit: a string and its copy need twice as many tokens but seq_len is "
                "{}; raise train.seq_len or lower data.span",
                data.span > 0 ? data.span : 1, seq_len);
  if (model.vocab < first_symbol + 2)
    return fail(ErrorCode::invalid_argument,
                "copy needs a filler, a separator and 2 symbols but model.vocab is {}; set it to at least {}",
                model.vocab, first_symbol + 2);
  return ok();
}

Result<std::unique_ptr<DataSource>> open_copy(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                              uint64_t seed, const StopFlag*) {
  std::unique_ptr<DataSource> source = std::make_unique<CopySource>(data, model.vocab, seq_len, seed);
  return source;
}

}  // namespace

const DataKind& copy_data() {
  static const DataKind kind{"copy",
                             "Copy a string",
                             "A random string, a separator, and the same string once more.",
                             DataFiles::none,
                             34,
                             {data_span},
                             validate_copy,
                             open_copy};
  return kind;
}

}  // namespace rat
