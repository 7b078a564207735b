// SentencePiece text and token files as data: ids, splits, streaming, refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "core/io/sha256.h"
#include "core/tokenizer.h"
#include "experiments/data/data_source.h"
#include "experiments/data/sentencepiece_tokenizer.h"
#include "experiments/data/text_source.h"
#include "experiments/data/tokenizers.h"
#include "tests/experiments/store_fixture.h"
#include "tests/support/tiny_tokenizer.h"

namespace rat {
namespace {

using testing::HasSubstr;

constexpr int64_t pieces = 350;

class Tokens : public testing::Test {
 protected:
  void SetUp() override {
    test::train_tiny_tokenizer(model_, pieces);
    ::setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
    config_.vocab = pieces;
  }
  DataConfig text_data(const std::string& text) {
    write_bytes(folder_ / "text.txt", text);
    DataConfig data;
    data.path = (folder_ / "text.txt").string();
    data.tokenizer = model_.string();
    return data;
  }
  DataConfig token_data(const std::vector<uint16_t>& ids) {
    write_bytes(folder_ / "ids.bin", {reinterpret_cast<const char*>(ids.data()), ids.size() * 2});
    DataConfig data;
    data.kind = "tokens";
    data.path = (folder_ / "ids.bin").string();
    return data;
  }
  Result<std::unique_ptr<DataSource>> open(const DataConfig& data, int64_t seq_len = 8) {
    return DataSource::open(data, config_, seq_len, 1);
  }
  static std::vector<uint16_t> count_up(int n) {
    std::vector<uint16_t> ids;
    for (int i = 0; i < n; ++i) ids.push_back(static_cast<uint16_t>(i % pieces));
    return ids;
  }

  TemporaryFolder folder_;
  std::filesystem::path model_ = folder_ / "tiny.model";
  ModelConfig config_;
};

std::string some_text(int lines) {
  std::string text;
  for (int i = 0; i < lines; ++i)
    text += fmt::format("line {}: the lazy fox reads  {} times \xc3\xa9\xe2\x82\xac\n", i, i * 31 % 97);
  return text;
}

TEST_F(Tokens, PiecesGiveBackTheTextByteForByte) {
  const auto tokenizer = *open_sentencepiece(model_);
  EXPECT_EQ(tokenizer->vocab(), pieces);
  EXPECT_EQ(tokenizer->name(), "SentencePiece tiny.model");
  EXPECT_EQ(tokenizer->hash(), sha256_hex(file_bytes(model_)));
  const std::string text = some_text(3) + "\ttabs, \xf0\x9f\x90\x80 and a last line";
  const auto ids = tokenizer->encode(text);
  ASSERT_TRUE(ids) << ids.error().message;
  EXPECT_LT(ids->size(), text.size());
  EXPECT_EQ(running_bytes(*tokenizer, *ids), " " + text);  // SentencePiece puts a space before the first word
  const int32_t line_break = tokenizer->encode("\n")->back();
  EXPECT_EQ(tokenizer->bytes_of(line_break), "\n");
  EXPECT_EQ(tokenizer->symbol(line_break), "");
  EXPECT_EQ(tokenizer->symbol(1), "<s>");
  EXPECT_EQ(tokenizer->bytes_of(1), "");
  EXPECT_EQ(tokenizer->symbol(pieces), fmt::format("<{}>", pieces));
  EXPECT_EQ(tokenizer->bytes_of(-1), "");
}

TEST_F(Tokens, WhatIsNoModelIsRefused) {
  write_bytes(folder_ / "not.model", "this is text, not a model");
  const auto opened = open_sentencepiece(folder_ / "not.model");
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, HasSubstr("is not a SentencePiece model"));
  EXPECT_FALSE(open_sentencepiece(folder_ / "absent.model"));
  EXPECT_FALSE(open_sentencepiece(folder_.path()));
  EXPECT_FALSE(open_sentencepiece("/dev/zero"));
  const std::string whole = file_bytes(model_);
  write_bytes(folder_ / "half.model", whole.substr(0, whole.size() / 2));
  EXPECT_FALSE(open_sentencepiece(folder_ / "half.model"));
  write_bytes(folder_ / "empty.model", "");
  EXPECT_FALSE(open_sentencepiece(folder_ / "empty.model"));
}

TEST_F(Tokens, AnotherVocabularyIsRefusedWithBothNumbers) {
  config_.vocab = 32000;
  const auto source = open(text_data(some_text(200)));
  ASSERT_FALSE(source);
  EXPECT_THAT(source.error().message, HasSubstr("has 350 pieces, but model.vocab is 32000"));
}

TEST_F(Tokens, TextBecomesThePiecesOfTheModel) {
  const std::string text = some_text(500);
  const auto source = open(text_data(text), 16);
  ASSERT_OK(source);
  EXPECT_EQ((*source)->vocab(), pieces);
  EXPECT_FALSE((*source)->byte_tokens());
  ASSERT_NE((*source)->tokenizer(), nullptr);
  EXPECT_THAT((*source)->description(), HasSubstr("SentencePiece tiny.model (350 pieces)"));
  const auto probe = (*source)->probe_tokens(50);
  ASSERT_OK(probe);
  EXPECT_NE(text.find(running_bytes(*(*source)->tokenizer(), *probe)), std::string::npos);
  // Targets are the inputs one further on, in training and in validation.
  const auto batch = (*source)->train_batch(3, 4);
  ASSERT_OK(batch);
  for (int64_t row = 0; row < 4; ++row)
    for (int64_t t = 0; t + 1 < 16; ++t)
      EXPECT_EQ(batch->targets[static_cast<std::size_t>(row * 16 + t)],
                batch->inputs[static_cast<std::size_t>(row * 16 + t + 1)]);
}

TEST_F(Tokens, TheHashNamesTextAndTokenizer) {
  const std::string text = some_text(200);
  const std::string both = (*open(text_data(text)))->hash();
  EXPECT_NE(both, (*open(text_data(text + "x")))->hash());
  DataConfig bytes = text_data(text);
  bytes.tokenizer.clear();
  EXPECT_NE(both, (*open(bytes))->hash());
  test::train_tiny_tokenizer(folder_ / "other.model", pieces + 1);
  config_.vocab = pieces + 1;
  DataConfig other = text_data(text);
  other.tokenizer = (folder_ / "other.model").string();
  EXPECT_NE(both, (*open(other))->hash());
}

// A long text is encoded in blocks into the cache; a short one at once. Both see the same tokens.
TEST_F(Tokens, ALongTextIsEncodedOnceIntoTheCache) {
  const std::string text = some_text(40000);
  ASSERT_GT(text.size(), small_text);
  const DataConfig data = text_data(text);
  std::vector<uint64_t> progress;
  ASSERT_OK(encode_ahead(data, config_, nullptr, [&](uint64_t done, uint64_t total) {
    EXPECT_EQ(total, text.size());
    progress.push_back(done);
  }));
  ASSERT_FALSE(progress.empty());
  EXPECT_EQ(progress.back(), text.size());
  const auto cache = folder_ / "cache/rat-workbench/tokens";
  const auto files = std::distance(std::filesystem::directory_iterator(cache), {});
  EXPECT_EQ(files, 1);
  const auto written = std::filesystem::last_write_time(*std::filesystem::directory_iterator(cache));
  const auto source = open(data, 64);
  ASSERT_OK(source);
  EXPECT_EQ(std::filesystem::last_write_time(*std::filesystem::directory_iterator(cache)), written);
  // Every token file byte pair decodes to the text: blocks only add the space before their first word.
  const std::string ids = file_bytes(*std::filesystem::directory_iterator(cache));
  std::string decoded;
  const auto tokenizer = (*source)->tokenizer();
  for (std::size_t i = 0; i < ids.size(); i += 2)
    decoded += tokenizer->bytes_of(static_cast<unsigned char>(ids[i]) | static_cast<unsigned char>(ids[i + 1]) << 8);
  std::string without_spaces = decoded, wanted = text;
  std::erase(without_spaces, ' ');
  std::erase(wanted, ' ');
  EXPECT_EQ(without_spaces, wanted);
  EXPECT_LE(decoded.size(), text.size() + text.size() / 60000 + 2);
}

TEST_F(Tokens, StoppingLeavesNoHalfCache) {
  const DataConfig data = text_data(some_text(40000));
  StopFlag stop;
  stop.request();
  const Status stopped = encode_ahead(data, config_, &stop, {});
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::cancelled);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "cache"));
}

TEST_F(Tokens, LinesLongerThanABlockAreCutBetweenCharacters) {
  std::string text;
  while (text.size() < small_text + 1000) text += "\xe2\x82\xac\xc3\xa9x";
  const DataConfig data = text_data(text);
  ASSERT_OK(encode_ahead(data, config_, nullptr, {}));
  const auto source = open(data);
  ASSERT_OK(source);
  const auto tokens = *(*source)->probe_tokens(3000);
  EXPECT_NE(text.find(running_bytes(*(*source)->tokenizer(), tokens).substr(3, 600)), std::string::npos);
}

TEST_F(Tokens, ATokenFileIsReadAsItIs) {
  const auto source = open(token_data(count_up(1000)), 8);
  ASSERT_OK(source);
  EXPECT_EQ((*source)->tokenizer(), nullptr);
  EXPECT_THAT((*source)->description(), HasSubstr("1000 tokens, the last 100 for validation"));
  EXPECT_EQ(*(*source)->probe_tokens(3), (std::vector<int32_t>{900 % pieces, 901 % pieces, 902 % pieces}));
  EXPECT_EQ((*source)->hash(), sha256_hex(file_bytes(folder_ / "ids.bin")));
}

TEST_F(Tokens, NoTokenIsOnBothSidesOfTheSplit) {
  const auto source = open(token_data(count_up(300)), 8);  // fewer than the vocabulary: each id occurs once
  ASSERT_OK(source);
  for (int64_t step = 0; step < 300; ++step) {
    const auto batch = *(*source)->train_batch(step, 4);
    EXPECT_LT(*std::ranges::max_element(batch.targets), 270);
  }
  const auto batches = *(*source)->validation(4, 1000);
  for (const TokenBatch& batch : batches) EXPECT_GE(*std::ranges::min_element(batch.inputs), 270);
}

TEST_F(Tokens, IdsOutsideTheVocabularyAreRefusedWithTheirPlace) {
  std::vector<uint16_t> ids = count_up(1000);
  ids[701] = pieces;
  const auto source = open(token_data(ids));
  ASSERT_FALSE(source);
  EXPECT_THAT(source.error().message, HasSubstr("the token 350 at byte 1402, but model.vocab is 350"));
}

TEST_F(Tokens, OddSizesAndMissingFilesAreRefused) {
  DataConfig data = token_data(count_up(1000));
  std::filesystem::resize_file(data.path, 1999);
  ASSERT_FALSE(open(data));
  EXPECT_THAT(open(data).error().message, HasSubstr("1999 bytes, an odd number"));
  std::filesystem::resize_file(data.path, 0);
  EXPECT_FALSE(open(data));
  data.path = "";
  ASSERT_FALSE(open(data));
  EXPECT_THAT(open(data).error().message, HasSubstr("name a file of uint16 token ids"));
  for (const char* path : {"-", "/dev/zero", "/nowhere/at/all.bin"}) {
    data.path = path;
    EXPECT_FALSE(open(data)) << path;
  }
}

TEST_F(Tokens, ATokenizerBesideATokenFileIsForDisplay) {
  DataConfig data = token_data(count_up(1000));
  const std::string hash = (*open(data))->hash();
  data.tokenizer = model_.string();
  const auto source = open(data);
  ASSERT_OK(source);
  EXPECT_NE((*source)->tokenizer(), nullptr);
  EXPECT_EQ((*source)->hash(), hash);
}

TEST_F(Tokens, ATokenizerForATaskIsRefused) {
  DataConfig data;
  data.kind = "mqar";
  data.tokenizer = model_.string();
  const Status status = validate(data, config_, 64);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("means nothing to 'mqar'"));
}

TEST_F(Tokens, ALargeTokenFileStaysOnDisk) {
  const std::string block(1 << 20, '\1');  // id 257
  {
    std::ofstream out(folder_ / "large.bin", std::ios::binary);
    for (int i = 0; i < 65; ++i) out << block;
  }
  DataConfig data;
  data.kind = "tokens";
  data.path = (folder_ / "large.bin").string();
  const auto source = open(data);
  ASSERT_OK(source);
  ASSERT_OK((*source)->train_batch(0, 2));
  std::filesystem::resize_file(data.path, 1000);
  const auto batch = (*source)->train_batch(1, 2);
  ASSERT_FALSE(batch);  // read by position: the change is noticed
  EXPECT_THAT(batch.error().message, HasSubstr("changed while it was in use"));
}

}  // namespace
}  // namespace rat
