#include "experiments/data/data_source.h"

#include <algorithm>
#include <array>

#include "experiments/data/mqar_source.h"
#include "experiments/data/text_source.h"

namespace rat {
namespace {

// A kind of data is its own two files plus one line here.
struct Kind {
  std::string_view name;
  Status (*validate)(const DataConfig&, const ModelConfig&, int64_t seq_len);
  Result<std::unique_ptr<DataSource>> (*open)(const DataConfig&, const ModelConfig&, int64_t seq_len, uint64_t seed,
                                              const StopFlag*);
};
constexpr std::array kinds{Kind{"text", validate_text, open_text}, Kind{"mqar", validate_mqar, open_mqar}};
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
  return kind->validate(data, model, seq_len);
}

Result<std::unique_ptr<DataSource>> DataSource::open(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                                     uint64_t seed, const StopFlag* stop) {
  RAT_TRY(validate(data, model, seq_len));
  RAT_ASSIGN(const Kind* kind, find_kind(data.kind));
  return kind->open(data, model, seq_len, seed, stop);
}

}  // namespace rat
