#include "experiments/data/data_source.h"

#include <algorithm>
#include <array>

#include "experiments/data/copy_source.h"
#include "experiments/data/induction_source.h"
#include "experiments/data/mqar_source.h"
#include "experiments/data/needle_source.h"
#include "experiments/data/text_source.h"
#include "experiments/data/token_file_source.h"
#include "experiments/data/tokenizers.h"

namespace rat {
namespace {

// A kind of data is its own two files plus one line here.
struct Kind {
  std::string_view name;
  Status (*validate)(const DataConfig&, const ModelConfig&, int64_t seq_len);
  Result<std::unique_ptr<DataSource>> (*open)(const DataConfig&, const ModelConfig&, int64_t seq_len, uint64_t seed,
                                              const StopFlag*);
};
constexpr std::array kinds{
    Kind{"text", validate_text, open_text},       Kind{"tokens", validate_token_file, open_token_file},
    Kind{"mqar", validate_mqar, open_mqar},
    Kind{"needle", validate_needle, open_needle}, Kind{"copy", validate_copy, open_copy},
    Kind{"induction", validate_induction, open_induction},
};
constexpr auto kind_names = [] {
  std::array<std::string_view, kinds.size()> names{};
  for (std::size_t i = 0; i < kinds.size(); ++i) names[i] = kinds[i].name;
  return names;
}();

Result<const Kind*> find_kind(const std::string& name) {
  const auto kind = std::ranges::find(kinds, name, &Kind::name);
  if (kind != kinds.end()) return &*kind;
  return fail(ErrorCode::invalid_argument, "There is no data kind '{}'; use one of: {}", name,
              fmt::join(kind_names, ", "));
}

}  // namespace

std::span<const std::string_view> data_kinds() { return kind_names; }

Status validate(const DataConfig& data, const ModelConfig& model, int64_t seq_len) {
  RAT_ASSIGN(const Kind* kind, find_kind(data.kind));
  if (seq_len < 1) return fail(ErrorCode::invalid_argument, "seq_len is {}; use 1 or more", seq_len);
  RAT_TRY(validate_tokenizer(data));
  return kind->validate(data, model, seq_len);
}

Result<std::unique_ptr<DataSource>> DataSource::open(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                                     uint64_t seed, const StopFlag* stop) {
  RAT_TRY(validate(data, model, seq_len));
  RAT_ASSIGN(const Kind* kind, find_kind(data.kind));
  return kind->open(data, model, seq_len, seed, stop);
}

}  // namespace rat
