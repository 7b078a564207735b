#include "experiments/data/data_kinds.h"

#include <algorithm>
#include <array>

#include "experiments/data/tokenizers.h"

namespace rat {

std::span<const DataKind> data_kinds() {
  static const std::array list{text_data(),   token_file_data(), mqar_data(),
                               needle_data(), copy_data(),       induction_data()};
  return list;
}

Result<const DataKind*> find_data_kind(std::string_view name) {
  std::vector<std::string_view> names;
  for (const DataKind& kind : data_kinds()) {
    if (kind.name == name) return &kind;
    names.push_back(kind.name);
  }
  return fail(ErrorCode::invalid_argument, "There is no data kind '{}'; use one of: {}", name, fmt::join(names, ", "));
}

std::vector<DataNumber> data_numbers() {
  std::vector<DataNumber> all;
  for (const DataKind& kind : data_kinds())
    for (const DataNumber& number : kind.numbers)
      if (std::ranges::find(all, number.key, &DataNumber::key) == all.end()) all.push_back(number);
  return all;
}

Status validate(const DataConfig& data, const ModelConfig& model, int64_t seq_len) {
  RAT_ASSIGN(const DataKind* kind, find_data_kind(data.kind));
  if (seq_len < 1) return fail(ErrorCode::invalid_argument, "seq_len is {}; use 1 or more", seq_len);
  RAT_TRY(validate_tokenizer(data));
  return kind->validate(data, model, seq_len);
}

Result<std::unique_ptr<DataSource>> DataSource::open(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                                     uint64_t seed, const StopFlag* stop) {
  RAT_TRY(validate(data, model, seq_len));
  RAT_ASSIGN(const DataKind* kind, find_data_kind(data.kind));
  return kind->open(data, model, seq_len, seed, stop);
}

}  // namespace rat
