// Where the tokens of a run come from. A source is immutable after `open`; every batch is a pure function of
// (seed, step), so a resumed run continues in O(1) with the bytes it would have seen.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/config.h"
#include "core/stop.h"
#include "core/token_batch.h"
#include "core/tokenizer.h"
#include "kernels/base/status.h"

namespace rat {

struct DataConfig {
  std::string kind = "text";  // the name of one of data_kinds()
  // text: a file, a folder (walked in sorted order), "-" for standard input; empty: the project's own source tree.
  // tokens: a file of uint16 ids.
  std::string path;
  // text, tokens: a SentencePiece model; empty: text is bytes, the ids of a token file are numbers.
  std::string tokenizer;
  double validation_fraction = 0.1;  // text, tokens: this share, at the end of the stream, is never trained on
  // mqar: `pairs` key-value pairs open the sequence, then `queries` keys are asked for at random places.
  // needle: `pairs` pairs are hidden in noise, then `queries` keys are asked for.
  int64_t pairs = 4;
  int64_t queries = 16;
  int64_t span = 0;  // copy: the longest string, in tokens; 0: half of the sequence
  bool operator==(const DataConfig&) const = default;
};

// Checks what can be checked without touching a file: kind, ranges, vocabulary, sequence length.
Status validate(const DataConfig& data, const ModelConfig& model, int64_t seq_len);

// Token ids first .. first + count - 1.
struct TokenRange {
  int64_t first = 0, count = 0;
};

class DataSource {
 public:
  // Reads the data once to hash it (and keeps it in memory when it is small); `stop` cancels that.
  static Result<std::unique_ptr<DataSource>> open(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                                  uint64_t seed, const StopFlag* stop = nullptr);
  virtual ~DataSource() = default;
  DataSource(const DataSource&) = delete;
  DataSource& operator=(const DataSource&) = delete;

  // `batch` sequences of seq_len tokens. A pure function of (seed, step). A file that changed or shrank since `open`
  // is an error that names it.
  virtual Result<TokenBatch> train_batch(int64_t step, int64_t batch) const = 0;
  // About `max_tokens` positions (at least one sequence), always the same ones whatever the seed, in batches of at
  // most `batch` sequences.
  virtual Result<std::vector<TokenBatch>> validation(int64_t batch, int64_t max_tokens) const = 0;
  // Validation tokens for probes: the first min(n, available) of them, always the same.
  virtual Result<std::vector<int32_t>> probe_tokens(int64_t n) const = 0;

  virtual std::string hash() const = 0;         // hex SHA-256 of the content (text) or of the task's settings
  virtual std::string description() const = 0;  // one line: what was used, what was skipped, the split
  virtual int64_t vocab() const = 0;            // ids are below this
  virtual bool byte_tokens() const = 0;         // ids are bytes of text
  virtual std::shared_ptr<const Tokenizer> tokenizer() const { return nullptr; }  // null: ids are numbers
  // Tokens of the validation part, where it is a part of something: opened with a longer seq_len, it must not have
  // grown into what was trained on. 0: validation sequences are made as needed.
  virtual int64_t validation_size() const = 0;
  virtual TokenRange answers() const { return {}; }  // what an answer can be, of tasks that ask; empty: it is text

 protected:
  DataSource() = default;
};

}  // namespace rat
