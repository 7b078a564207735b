// Induction (Olsson et al., arXiv:2209.11895): when a symbol comes back, what followed it the last time follows again.
//
//   inputs   a c b d a c c b d d
//   targets  . . . . c . . d . .        (. = ignore_target)
//
// Every symbol is drawn in three ways: where the symbol before it has been seen, with probability 1/2 it is what
// followed then, and this is asked for; otherwise a symbol seen anywhere before, or any symbol, with equal chances. So
// what is asked for lies any number of tokens back. Token ids: 0 unused; 1 .. V-1 symbols. Every sequence asks at
// least once.
#include <algorithm>

#include "experiments/data/data_kinds.h"
#include "experiments/data/generated_source.h"

namespace rat {
namespace {

class InductionSource final : public GeneratedSource {
 public:
  InductionSource(int64_t vocab, int64_t seq_len, uint64_t seed) : GeneratedSource(vocab, seq_len, seed) {}

  std::string description() const override {
    return fmt::format("induction: {} symbols in {} tokens", symbols(), seq_len());
  }
  TokenRange answers() const override { return {1, symbols()}; }

 private:
  int64_t symbols() const { return vocab() - 1; }
  std::string settings() const override { return "induction 1"; }

  void make(RandomStream& random, std::span<int32_t> inputs, std::span<int32_t> targets) const override {
    while (!draw(random, inputs, targets)) std::ranges::fill(targets, ignore_target);
  }

  int32_t any_symbol(RandomStream& random) const { return static_cast<int32_t>(1 + draw_below(random, symbols())); }

  // False when no symbol was asked for, which happens in short sequences.
  bool draw(RandomStream& random, std::span<int32_t> inputs, std::span<int32_t> targets) const {
    std::vector<int32_t> successor(static_cast<std::size_t>(vocab()), 0);  // of the last time; 0: not seen
    bool asked = false;
    int32_t symbol = any_symbol(random);
    for (std::size_t t = 0; t < inputs.size(); ++t) {
      inputs[t] = symbol;
      int32_t next = successor[symbol];
      if (next != 0 && draw_below(random, 2) == 0) {
        targets[t] = next;
        asked = true;
      } else {
        next = draw_below(random, 2) == 0 ? inputs[random.below(t + 1)] : any_symbol(random);
      }
      successor[symbol] = next;
      symbol = next;
    }
    return asked;
  }
};

Status validate_induction(const DataConfig&, const ModelConfig& model, int64_t seq_len) {
  if (seq_len < 4)
    return fail(ErrorCode::invalid_argument, "induction needs 4 tokens but seq_len is {}; raise train.seq_len",
                seq_len);
  if (model.vocab < 3)
    return fail(ErrorCode::invalid_argument, "induction needs 2 symbols but model.vocab is {}; set it to at least 3",
                model.vocab);
  return ok();
}

Result<std::unique_ptr<DataSource>> open_induction(const DataConfig&, const ModelConfig& model, int64_t seq_len,
                                                   uint64_t seed, const StopFlag*) {
  std::unique_ptr<DataSource> source = std::make_unique<InductionSource>(model.vocab, seq_len, seed);
  return source;
}

}  // namespace

const DataKind& induction_data() {
  static const DataKind kind{"induction",
                             "Induction",
                             "A symbol that came before is followed by what followed it the last time.",
                             DataFiles::none,
                             33,
                             {},
                             validate_induction,
                             open_induction};
  return kind;
}

}  // namespace rat
