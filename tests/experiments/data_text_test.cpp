// Byte text: where it comes from, what is refused, and that validation bytes are never trained on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

#include "core/io/sha256.h"
#include "experiments/data/byte_stream.h"
#include "experiments/data/data_source.h"
#include "experiments/data/random_stream.h"
#include "tests/core/io_temp_folder.h"

namespace rat {
namespace {

using test::TempFolder;
using test::write_plain;
using testing::HasSubstr;

std::unique_ptr<DataSource> open_path(const std::filesystem::path& path, int64_t seq_len, uint64_t seed = 1,
                                      double fraction = 0.1) {
  DataConfig config;
  config.path = path.string();
  config.validation_fraction = fraction;
  auto source = DataSource::open(config, ModelConfig{}, seq_len, seed);
  EXPECT_TRUE(source) << (source ? "" : source.error().message);
  return source ? *std::move(source) : nullptr;
}

std::string refusal(const std::filesystem::path& path, int64_t seq_len) {
  DataConfig config;
  config.path = path.string();
  const auto source = DataSource::open(config, ModelConfig{}, seq_len, 1);
  EXPECT_FALSE(source);
  return source ? "" : source.error().message;
}

// Bytes that tell their own position: value = (position * 7) % 251, unique within 251 neighbours.
std::string numbered(std::size_t n) {
  std::string bytes(n, '\0');
  for (std::size_t i = 0; i < n; ++i) bytes[i] = static_cast<char>(i * 7 % 251);
  return bytes;
}

TEST(TextData, TargetsAreTheNextBytesAndBatchesDependOnlyOnSeedAndStep) {
  const TempFolder folder;
  write_plain(folder / "a.txt", numbered(5000));
  const auto one = open_path(folder / "a.txt", 32, 7);
  const auto two = open_path(folder / "a.txt", 32, 7);
  const auto other = open_path(folder / "a.txt", 32, 8);
  ASSERT_TRUE(one && two && other);
  EXPECT_TRUE(two->train_batch(3, 4));  // asking for other steps first changes nothing
  const auto a = one->train_batch(900, 4), b = two->train_batch(900, 4), c = other->train_batch(900, 4),
             d = one->train_batch(901, 4);
  ASSERT_TRUE(a && b && c && d);
  EXPECT_EQ(a->inputs, b->inputs);
  EXPECT_NE(a->inputs, c->inputs);
  EXPECT_NE(a->inputs, d->inputs);
  ASSERT_EQ(a->inputs.size(), 4u * 32u);
  for (std::size_t i = 0; i < a->inputs.size(); ++i) EXPECT_EQ(a->targets[i], (a->inputs[i] + 7) % 251);
}

// Every byte gets a unique place in a stream where training and validation use different alphabets.
TEST(TextData, NoTrainingSequenceTouchesAValidationByte) {
  const TempFolder folder;
  for (const std::size_t size : {200u, 331u, 1000u, 4097u}) {
    const std::size_t T = 16;
    const std::size_t validation = std::max<std::size_t>(T + 1, static_cast<std::size_t>(std::llround(0.1 * size)));
    write_plain(folder / "split", std::string(size - validation, 't') + std::string(validation, 'v'));
    const auto source = open_path(folder / "split", T);
    ASSERT_TRUE(source);
    for (int64_t step = 0; step < 400; ++step) {
      const auto batch = source->train_batch(step, 8);
      ASSERT_TRUE(batch);
      for (const auto& tokens : {batch->inputs, batch->targets})
        ASSERT_TRUE(std::ranges::all_of(tokens, [](int32_t t) { return t == 't'; }))
            << "size " << size << " step " << step;
    }
    const auto batches = source->validation(3, 1'000'000);
    ASSERT_TRUE(batches);
    for (const TokenBatch& batch : *batches)
      for (const auto& tokens : {batch.inputs, batch.targets})
        ASSERT_TRUE(std::ranges::all_of(tokens, [](int32_t t) { return t == 'v'; })) << "size " << size;
  }
}

// The split is used to its edges: the last training byte is reached, and the first validation byte too.
TEST(TextData, TrainingReachesTheFirstAndTheLastTrainingByte) {
  const TempFolder folder;
  std::string bytes(100, 'm');
  bytes[0] = 'F';
  bytes[82] = 'L';  // 17 validation bytes: 83 .. 99
  bytes[83] = 'V';
  write_plain(folder / "f", bytes);
  const auto source = open_path(folder / "f", 16);
  std::set<int32_t> seen;
  for (int64_t step = 0; step < 300; ++step) {
    const auto batch = source->train_batch(step, 8);
    ASSERT_TRUE(batch);
    seen.insert(batch->inputs.begin(), batch->inputs.end());
    seen.insert(batch->targets.begin(), batch->targets.end());
  }
  EXPECT_TRUE(seen.contains('F'));
  EXPECT_TRUE(seen.contains('L'));
  EXPECT_FALSE(seen.contains('V'));
  EXPECT_EQ(source->probe_tokens(1)->front(), 'V');
}

TEST(TextData, ValidationIsFixedSpreadAndCapped) {
  const TempFolder folder;
  write_plain(folder / "f", numbered(20'000));
  const auto source = open_path(folder / "f", 10, 1), other_seed = open_path(folder / "f", 10, 2);
  const auto all = source->validation(7, 1'000'000);
  ASSERT_TRUE(all);
  int64_t sequences = 0;
  for (const TokenBatch& batch : *all) {
    EXPECT_LE(batch.batch, 7);
    EXPECT_EQ(batch.inputs.size(), static_cast<std::size_t>(batch.batch * batch.tokens));
    sequences += batch.batch;
  }
  EXPECT_EQ(sequences, 199);  // 2000 validation bytes, 1999 with a target, 10 each
  const auto some = source->validation(7, 50), again = other_seed->validation(7, 50);
  ASSERT_EQ(some->size(), 1u);
  EXPECT_EQ(some->front().batch, 5);
  EXPECT_EQ(some->front().inputs, again->front().inputs);
  // The last of the five ends near the end of the stream: 1999 - 10 = 1989 over 4 strides, begins at 4 * 497.
  EXPECT_EQ(some->front().inputs[40], (18'000 + 4 * 497) * 7 % 251);
  EXPECT_EQ(source->probe_tokens(12)->size(), 12u);
  EXPECT_EQ(source->probe_tokens(1'000'000)->size(), 2000u);
}

TEST(TextData, FolderIsWalkedInOrderAndSaysWhatItSkipped) {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "b/.git");
  std::filesystem::create_directories(folder / "build-debug");
  write_plain(folder / "c.txt", "CCCC");
  write_plain(folder / "a.txt", "\xff\xfe latin or nothing");  // not UTF-8: still text
  write_plain(folder / "b/x", std::string(400, 'B'));
  write_plain(folder / "empty", "");
  write_plain(folder / "b/.git/config", "secret");
  write_plain(folder / ".hidden", "secret");
  write_plain(folder / "build-debug/log", "secret");
  write_plain(folder / "image.png", std::string("PNG\0data", 8));
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  std::filesystem::create_directory_symlink(folder.path(), folder / "loop");
  const auto source = open_path(folder.path(), 8);
  ASSERT_TRUE(source);
  EXPECT_EQ(source->hash(), sha256_hex("\xff\xfe latin or nothing" + std::string(400, 'B') + "CCCC"));
  EXPECT_THAT(source->description(),
              testing::AllOf(HasSubstr("4 files"), HasSubstr("1 binary"), HasSubstr("5 hidden, build or linked")));
}

TEST(TextData, WhatCannotBeUsedIsRefusedInOneSentence) {
  const TempFolder folder;
  write_plain(folder / "empty", "");
  write_plain(folder / "short", std::string(65, 'x'));
  std::filesystem::create_directory(folder / "nothing");
  std::filesystem::create_directory(folder / "binaries");
  write_plain(folder / "binaries/x.bin", std::string(100, '\0'));
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(refusal(folder / "missing", 32), HasSubstr("no file or folder"));
  EXPECT_THAT(refusal(folder / "empty", 32), HasSubstr("is empty"));
  EXPECT_THAT(refusal(folder / "short", 32), HasSubstr("65 bytes, too few"));
  EXPECT_THAT(refusal(folder / "nothing", 32), HasSubstr("no readable text file"));
  EXPECT_THAT(refusal(folder / "binaries", 32), HasSubstr("1 binary"));
  EXPECT_THAT(refusal(folder / "pipe", 32), HasSubstr("a pipe"));
  EXPECT_THAT(refusal("/dev/zero", 32), HasSubstr("a device"));
  write_plain(folder / "short", std::string(66, 'x'));  // exactly one training and one validation sequence
  EXPECT_TRUE(open_path(folder / "short", 32));

  DataConfig config;
  ModelConfig model;
  config.path = (folder / "short").string();
  model.vocab = 255;
  EXPECT_FALSE(validate(config, model, 32));
  EXPECT_TRUE(validate(config, ModelConfig{}, 32));
  for (const double fraction : {0.0, 1.0, -0.1, std::nan("")}) {
    config.validation_fraction = fraction;
    EXPECT_FALSE(validate(config, ModelConfig{}, 32));
  }
  config.kind = "txet";
  const Status unknown = validate(config, ModelConfig{}, 32);
  ASSERT_FALSE(unknown);
  EXPECT_THAT(unknown.error().message, testing::AllOf(HasSubstr("'txet'"), HasSubstr("text, tokens, mqar")));
}

TEST(TextData, NoPermissionIsRefused) {
  if (::geteuid() == 0)
    GTEST_SKIP() << "root may read every file, so a file without permissions cannot be tested as root";
  const TempFolder folder;
  write_plain(folder / "closed", std::string(1000, 'x'));
  ASSERT_EQ(::chmod((folder / "closed").c_str(), 0), 0);
  EXPECT_THAT(refusal(folder / "closed", 32), HasSubstr("permission denied"));
}

TEST(ByteStream, ReadsAcrossFilesFromMemoryAndFromDisk) {
  const TempFolder folder;
  write_plain(folder / "a", "abc");
  write_plain(folder / "b", "");
  write_plain(folder / "c", "defgh");
  const std::vector<std::filesystem::path> files{folder / "a", folder / "b", folder / "c"};
  const std::string whole = "abcdefgh";
  for (const uint64_t keep_below : {uint64_t{0}, ByteStream::memory_limit}) {
    const auto stream = ByteStream::from_files(files, nullptr, keep_below);
    ASSERT_TRUE(stream);
    EXPECT_EQ(stream->hash(), sha256_hex(whole));
    for (std::size_t begin = 0; begin <= whole.size(); ++begin) {
      for (std::size_t n = 0; begin + n <= whole.size(); ++n) {
        std::string out(n, '?');
        ASSERT_TRUE(stream->read(begin, out));
        ASSERT_EQ(out, whole.substr(begin, n));
      }
    }
  }
}

TEST(ByteStream, AFileThatShrinksOrVanishesIsNamed) {
  const TempFolder folder;
  write_plain(folder / "big", std::string(10'000, 'x'));
  const auto stream = ByteStream::from_files({folder / "big"}, nullptr, 0);
  ASSERT_TRUE(stream);
  std::string out(100, '?');
  ASSERT_TRUE(stream->read(9'900, out));
  ASSERT_EQ(::truncate((folder / "big").c_str(), 9'950), 0);
  const Status shrunk = stream->read(0, out);
  ASSERT_FALSE(shrunk);
  EXPECT_THAT(shrunk.error().message,
              testing::AllOf(HasSubstr("big changed while it was in use"), HasSubstr("9950 now")));
  std::filesystem::remove(folder / "big");
  EXPECT_FALSE(stream->read(0, out));
}

TEST(ByteStream, StandardInputIsSpooled) {
  const std::string text = numbered(300'000);
  for (const uint64_t keep_below : {uint64_t{0}, ByteStream::memory_limit}) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(ends[0]);
      for (std::size_t at = 0; at < text.size(); at += 1000)
        if (::write(ends[1], text.data() + at, 1000) != 1000) ::_exit(1);
      ::_exit(0);
    }
    ::close(ends[1]);
    const auto stream = ByteStream::from_descriptor(ends[0], nullptr, keep_below);
    ::close(ends[0]);
    ASSERT_TRUE(stream);
    EXPECT_EQ(stream->size(), text.size());
    EXPECT_EQ(stream->hash(), sha256_hex(text));
    std::string out(1000, '?');
    ASSERT_TRUE(stream->read(123'456, out));
    EXPECT_EQ(out, text.substr(123'456, 1000));
  }
}

TEST(ByteStream, OpeningCanBeStopped) {
  const TempFolder folder;
  write_plain(folder / "f", std::string(1000, 'x'));
  StopFlag stop;
  stop.request();
  const auto stream = ByteStream::from_files({folder / "f"}, &stop);
  ASSERT_FALSE(stream);
  EXPECT_EQ(stream.error().code, ErrorCode::cancelled);
}

// 3 GB of hole with text at the end: opened without loading it, and read beyond 2^31.
TEST(ByteStream, LargeFilesAreNotLoaded) {
  const TempFolder folder;
  const uint64_t size = uint64_t{3} << 30;
  write_plain(folder / "huge", "");
  ASSERT_EQ(::truncate((folder / "huge").c_str(), static_cast<off_t>(size)), 0);
  const auto file = RegularFile::open(folder / "huge");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->size(), size);
  std::string out(10, '?');
  ASSERT_TRUE(file->read_at(size - 10, out));
  EXPECT_EQ(out, std::string(10, '\0'));
  EXPECT_FALSE(file->read_at(size - 9, out));
}

TEST(SourceTree, DefaultDataIsTheProgramsOwnText) {
  const auto source = open_path("", 64);
  ASSERT_TRUE(source);
  EXPECT_THAT(source->description(), HasSubstr("own source tree"));
  const auto selection = select_source_tree(RAT_SOURCE_DIR);
  ASSERT_TRUE(selection);
  const auto holds = [&](std::string_view name) {
    return std::ranges::any_of(selection->files, [&](const auto& path) { return path.string().ends_with(name); });
  };
  EXPECT_TRUE(holds("experiments/data/text_source.cpp"));
  EXPECT_FALSE(holds("mixers.safetensors"));
  const TempFolder empty;
  const auto missing = select_source_tree(empty.path());
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message, HasSubstr("--data"));
}

TEST(RandomStream, DrawsAreUniformAndStreamsDiffer) {
  RandomStream random{1, 2, 3};
  std::vector<int> counts(10);
  for (int i = 0; i < 100'000; ++i) ++counts[random.below(10)];
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 500);  // 5 standard deviations are 474
  EXPECT_EQ((RandomStream{1, 2}.next()), (RandomStream{1, 2}.next()));
  EXPECT_NE((RandomStream{1, 2}.next()), (RandomStream{2, 1}.next()));
}

}  // namespace
}  // namespace rat
