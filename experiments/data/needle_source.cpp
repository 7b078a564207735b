#include "experiments/data/needle_source.h"

#include <algorithm>
#include <cmath>

#include "experiments/data/data_kinds.h"
#include "experiments/data/generated_source.h"

namespace rat {
namespace {

// Haystack tokens per pair: with half of it hay, a place that is still free is found in a few draws.
constexpr int64_t room_per_pair = 4;

struct Needles {
  int64_t pairs, queries, vocab;

  int64_t keys() const { return (vocab - 1) / 4; }
  int64_t noise() const { return vocab - 1 - 2 * keys(); }

  // `pairs` places in a haystack of `size` tokens, two tokens each; the first is the needle's.
  std::vector<int64_t> draw_places(RandomStream& random, int64_t size, int64_t needle) const {
    std::vector<int64_t> places{needle};
    std::vector<bool> taken(static_cast<std::size_t>(size), false);
    taken[needle] = taken[needle + 1] = true;
    while (static_cast<int64_t>(places.size()) < pairs) {
      const int64_t place = draw_below(random, size - 1);
      if (taken[place] || taken[place + 1]) continue;
      taken[place] = taken[place + 1] = true;
      places.push_back(place);
    }
    return places;
  }

  void make(RandomStream& random, int64_t needle, std::span<int32_t> inputs, std::span<int32_t> targets) const {
    const auto size = static_cast<int64_t>(inputs.size()) - queries;
    for (int32_t& token : inputs.first(static_cast<std::size_t>(size)))
      token = static_cast<int32_t>(1 + 2 * keys() + draw_below(random, noise()));
    const std::vector<int64_t> places = draw_places(random, size, needle);
    const std::vector<int64_t> chosen = draw_distinct(random, keys(), pairs);
    for (std::size_t i = 0; i < places.size(); ++i) {
      inputs[places[i]] = static_cast<int32_t>(1 + chosen[i]);
      inputs[places[i] + 1] = static_cast<int32_t>(1 + keys() + draw_below(random, keys()));
    }
    for (int64_t query = 0; query < queries; ++query) {
      const int64_t place = places[query + 1 < queries ? draw_below(random, pairs) : 0];
      inputs[size + query] = inputs[place];
      targets[size + query] = inputs[place + 1];
    }
  }
};

class NeedleSource final : public GeneratedSource {
 public:
  NeedleSource(const DataConfig& data, int64_t vocab, int64_t seq_len, uint64_t seed)
      : GeneratedSource(vocab, seq_len, seed), needles_{data.pairs, data.queries, vocab} {}

  std::string description() const override {
    return fmt::format("needle: {} pairs in {} tokens of noise, {} queries at the end, {} keys and as many values",
                       needles_.pairs, seq_len() - needles_.queries, needles_.queries, needles_.keys());
  }
  TokenRange answers() const override { return {1 + needles_.keys(), needles_.keys()}; }

 private:
  std::string settings() const override {
    return fmt::format("needle 1: pairs {}, queries {}", needles_.pairs, needles_.queries);
  }
  void make(RandomStream& random, std::span<int32_t> inputs, std::span<int32_t> targets) const override {
    const int64_t needle = draw_below(random, seq_len() - needles_.queries - 1);
    needles_.make(random, needle, inputs, targets);
  }

  Needles needles_;
};

Status validate_needle(const DataConfig& data, const ModelConfig& model, int64_t seq_len) {
  const int64_t most = int64_t{1} << 32;  // far beyond any sequence, and sums of it do not overflow
  if (data.pairs < 1 || data.queries < 1 || data.pairs > most || data.queries > most)
    return fail(ErrorCode::invalid_argument,
                "needle with data.pairs {} and data.queries {} is impossible; use 1 or more of each", data.pairs,
                data.queries);
  if (room_per_pair * data.pairs + data.queries > seq_len)
    return fail(ErrorCode::invalid_argument,
                "needle with {} pairs and {} queries needs {} tokens ({} for each pair, so that half is noise) but "
                "seq_len is {}; raise train.seq_len or lower data.pairs or data.queries",
                data.pairs, data.queries, room_per_pair * data.pairs + data.queries, room_per_pair, seq_len);
  const int64_t needed = std::max<int64_t>(data.pairs, 2);
  if ((model.vocab - 1) / 4 < needed)
    return fail(ErrorCode::invalid_argument,
                "needle with {} pairs needs {} distinct keys but model.vocab {} gives {}; set model.vocab to at least "
                "{}",
                data.pairs, needed, model.vocab, (model.vocab - 1) / 4, 4 * needed + 1);
  return ok();
}

Result<std::unique_ptr<DataSource>> open_needle(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                                uint64_t seed, const StopFlag*) {
  std::unique_ptr<DataSource> source = std::make_unique<NeedleSource>(data, model.vocab, seq_len, seed);
  return source;
}

}  // namespace

const DataKind& needle_data() {
  static const DataKind kind{"needle",
                             "Needle in noise",
                             "Pairs are hidden in noise; at the end some of their keys ask for their values.",
                             DataFiles::none,
                             65,
                             {data_pairs, data_queries},
                             validate_needle,
                             open_needle};
  return kind;
}

int64_t needle_place(const DataConfig& data, int64_t seq_len, double depth) {
  RAT_CHECK(depth >= 0 && depth <= 1, "a depth is a share of the haystack");
  return std::llround(depth * static_cast<double>(seq_len - data.queries - 2));
}

TokenBatch needle_sequences(const DataConfig& data, int64_t vocab, int64_t seq_len, int64_t place, int64_t row,
                            int64_t count) {
  RAT_CHECK(place >= 0 && place <= seq_len - data.queries - 2, "the needle lies in the haystack");
  const auto T = static_cast<std::size_t>(seq_len);
  TokenBatch batch{.batch = count, .tokens = seq_len, .inputs = {}, .targets = {}};
  batch.inputs.resize(static_cast<std::size_t>(count) * T, 0);
  batch.targets.resize(batch.inputs.size(), ignore_target);
  const Needles needles{data.pairs, data.queries, vocab};
  for (int64_t i = 0; i < count; ++i) {
    RandomStream random = validation_stream(row + i);
    const auto targets = std::span(batch.targets).subspan(static_cast<std::size_t>(i) * T, T);
    needles.make(random, place, std::span(batch.inputs).subspan(static_cast<std::size_t>(i) * T, T), targets);
    std::ranges::fill(targets.first(T - 1), ignore_target);
  }
  return batch;
}

}  // namespace rat
