// A data source over one long stream of token ids.
//
// Split: the last `validation_fraction` of the ids (at least one sequence) is the validation part. A training sequence
// reads ids s .. s+T (inputs and targets) and lies wholly before the first validation id; a validation sequence lies
// wholly behind it. So no id is ever on both sides.
#pragma once

#include <memory>
#include <string>

#include "core/tokenizer.h"
#include "experiments/data/byte_stream.h"
#include "experiments/data/data_source.h"

namespace rat {

struct TokenStream {
  ByteStream bytes;
  int64_t width = 1;        // bytes of one id: 1, or 2 (little-endian)
  std::string description;  // where the ids come from
  std::string unit;         // what one id is: "bytes", "tokens"
  std::string hash;
  int64_t vocab = 256;
  std::shared_ptr<const Tokenizer> tokenizer;  // null: ids are numbers
};

Status validate_split(const DataConfig& data);
Result<std::unique_ptr<DataSource>> make_stream_source(TokenStream stream, double validation_fraction, int64_t seq_len,
                                                       uint64_t seed);

}  // namespace rat
