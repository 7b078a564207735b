// THE list of what a model can be trained on. The run spec's keys, its checks and the window's form follow from it: a kind
// is its own file plus one line in data_kinds.cpp.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "experiments/data/data_source.h"

namespace rat {

// A whole number of DataConfig as the run spec and a form know it.
struct DataNumber {
  std::string_view key;      // "data.pairs"
  std::string_view title;    // "Pairs"
  std::string_view meaning;  // one line
  int64_t DataConfig::*value;
  int64_t low = 1, high = 1 << 24;
  std::string_view lowest = "";  // what `low` stands for, "half of T"; empty: itself
};

inline constexpr DataNumber data_pairs{"data.pairs", "Pairs", "Key-value pairs in a sequence", &DataConfig::pairs};
inline constexpr DataNumber data_queries{"data.queries", "Queries", "Keys whose value is asked for, in a sequence",
                                         &DataConfig::queries};
inline constexpr DataNumber data_span{
    "data.span", "Longest string", "Symbols of the longest string to copy", &DataConfig::span, 0, 1 << 24, "half of T"};

// What data.path names. Data that are read may have a tokenizer, and their end is the validation part.
enum class DataFiles {
  none,    // sequences are made
  text,    // a file, a folder; empty: the project's own source tree
  tokens,  // a file of token ids
};

struct DataKind {
  std::string_view name;         // of data.kind
  std::string_view title;        // "Recall (mqar)"
  std::string_view description;  // one sentence for pickers
  DataFiles files = DataFiles::none;
  int64_t vocab = 256;              // what a new run takes where no tokenizer says it
  std::vector<DataNumber> numbers;  // its settings
  Status (*validate)(const DataConfig&, const ModelConfig&, int64_t seq_len) = nullptr;
  Result<std::unique_ptr<DataSource>> (*open)(const DataConfig&, const ModelConfig&, int64_t seq_len, uint64_t seed,
                                              const StopFlag*) = nullptr;
};

std::span<const DataKind> data_kinds();
Result<const DataKind*> find_data_kind(std::string_view name);
std::vector<DataNumber> data_numbers();  // of all kinds, each once, in their order

// One file each: experiments/data/<name>_source.cpp.
const DataKind& text_data();
const DataKind& token_file_data();
const DataKind& mqar_data();
const DataKind& needle_data();
const DataKind& copy_data();
const DataKind& induction_data();

}  // namespace rat
