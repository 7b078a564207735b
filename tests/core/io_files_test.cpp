// Round trips, conversions, and files that are saved whole or not at all.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "core/io/sha256.h"
#include "tests/core/io_temp_folder.h"

namespace rat {
namespace {

using test::TempFolder;

template <class T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// A file of one tensor "w" with the given stored bytes.
SafetensorsFile open_one(const std::filesystem::path& path, std::string_view dtype, std::size_t count,
                         const std::string& data) {
  const std::string header =
      fmt::format(R"({{"w":{{"dtype":"{}","shape":[{}],"data_offsets":[0,{}]}}}})", dtype, count, data.size());
  const uint64_t length = header.size();
  test::write_plain(path, std::string(reinterpret_cast<const char*>(&length), 8) + header + data);
  auto file = SafetensorsFile::open(path);
  EXPECT_TRUE(file) << (file ? "" : file.error().message);
  return *std::move(file);
}

TEST(Safetensors, RoundTripKeepsEveryBit) {
  const TempFolder folder;
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> floats{0.0f, -0.0f, 1e-45f, -3.25f, inf, -inf, std::bit_cast<float>(0x7fc12345u)};
  const std::vector<int32_t> ints{0, -1, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()};
  const std::vector<TensorToWrite> tensors{{"a/weights", {7}, floats, {}},
                                           {"tokens", {2, 2}, {}, ints},
                                           {"empty", {3, 0}, {}, {}},
                                           {"scalar", {}, std::span(floats).first(1), {}}};
  ASSERT_TRUE(write_safetensors(folder / "f", tensors, {{"quote", "\"\\\n é"}, {"", ""}}));

  const auto file = SafetensorsFile::open(folder / "f");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->tensors().size(), 4u);
  EXPECT_EQ(file->metadata().at("quote"), "\"\\\n é");
  const auto read = file->read_floats("a/weights");
  ASSERT_TRUE(read);
  EXPECT_EQ(raw(*read), raw(floats));
  EXPECT_EQ(*file->read_ints("tokens"), ints);
  EXPECT_EQ(file->tensors().at("tokens").shape, (std::vector<int64_t>{2, 2}));
  EXPECT_TRUE(file->read_floats("empty")->empty());
  EXPECT_EQ(file->read_floats("scalar")->size(), 1u);
  EXPECT_FALSE(file->read_floats("absent"));
  EXPECT_FALSE(file->read_floats("tokens"));
  EXPECT_FALSE(file->read_ints("a/weights"));
}

TEST(Safetensors, ConvertsHalfBfloatAndDouble) {
  const TempFolder folder;
  // 1, -2, smallest subnormal 2^-24, largest subnormal, largest finite, -0, +inf; then a NaN.
  const std::vector<uint16_t> halves{0x3c00, 0xc000, 0x0001, 0x03ff, 0x7bff, 0x8000, 0x7c00, 0x7e01};
  const auto f16 = open_one(folder / "h", "F16", 8, raw(halves)).read_floats("w");
  ASSERT_TRUE(f16);
  const std::vector<float> expected{1.0f,
                                    -2.0f,
                                    std::ldexp(1.0f, -24),
                                    std::ldexp(1023.0f, -24),
                                    65504.0f,
                                    -0.0f,
                                    std::numeric_limits<float>::infinity()};
  EXPECT_EQ(raw(std::vector<float>(f16->begin(), f16->begin() + 7)), raw(expected));
  EXPECT_TRUE(std::isnan(f16->at(7)));

  const auto bf16 = open_one(folder / "b", "BF16", 2, raw(std::vector<uint16_t>{0x3fc0, 0xff80})).read_floats("w");
  ASSERT_TRUE(bf16);
  EXPECT_EQ(bf16->at(0), 1.5f);
  EXPECT_EQ(bf16->at(1), -std::numeric_limits<float>::infinity());

  std::vector<double> doubles(70'000);  // more than one conversion block
  for (std::size_t i = 0; i < doubles.size(); ++i) doubles[i] = 0.5 * static_cast<double>(i);
  const auto f64 = open_one(folder / "d", "F64", doubles.size(), raw(doubles)).read_floats("w");
  ASSERT_TRUE(f64);
  for (std::size_t i = 0; i < doubles.size(); ++i) ASSERT_EQ((*f64)[i], static_cast<float>(doubles[i]));
}

TEST(Safetensors, IntegersAreCheckedNotCut) {
  const TempFolder folder;
  EXPECT_EQ(*open_one(folder / "a", "I64", 2, raw(std::vector<int64_t>{-5, 2147483647})).read_ints("w"),
            (std::vector<int32_t>{-5, 2147483647}));
  EXPECT_EQ(*open_one(folder / "b", "U16", 1, raw(std::vector<uint16_t>{65535})).read_ints("w"),
            (std::vector<int32_t>{65535}));
  const auto cut = open_one(folder / "c", "I64", 2, raw(std::vector<int64_t>{0, 2147483648})).read_ints("w");
  ASSERT_FALSE(cut);
  EXPECT_THAT(cut.error().message, testing::HasSubstr("element 1 is 2147483648"));
  EXPECT_FALSE(open_one(folder / "d", "U64", 1, raw(std::vector<uint64_t>{~uint64_t{0}})).read_ints("w"));
}

TEST(Safetensors, WriterRefusesWhatTheReaderWould) {
  const TempFolder folder;
  const std::vector<float> two(2);
  const std::vector<int32_t> ints(2);
  const std::vector<std::vector<TensorToWrite>> bad{{{"a", {3}, two, {}}},
                                                    {{"a", {-2}, two, {}}},
                                                    {{"a", {2}, two, {}}, {"a", {2}, two, {}}},
                                                    {{"__metadata__", {2}, two, {}}},
                                                    {{"a", {2}, two, ints}},
                                                    {{"\xff", {2}, two, {}}}};
  for (const auto& tensors : bad) {
    EXPECT_FALSE(write_safetensors(folder / "f", tensors, {}));
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  }
}

TEST(AtomicFile, ReplacesAndNeverLeavesTemporaries) {
  const TempFolder folder;
  ASSERT_TRUE(write_file_atomically(folder / "f", "first"));
  ASSERT_TRUE(write_file_atomically(folder / "f", "second"));
  EXPECT_EQ(test::read_plain(folder / "f"), "second");
  {
    auto file = AtomicFile::create(folder / "f");
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->write("abandoned"));
  }
  EXPECT_EQ(test::read_plain(folder / "f"), "second");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  EXPECT_FALSE(write_file_atomically(folder.path(), "x"));
  EXPECT_FALSE(write_file_atomically(folder / "no/such/folder", "x"));
  EXPECT_FALSE(write_file_atomically("/dev/null", "x"));
}

// Writes grow until they no longer fit; the old file must be there afterwards and no temporary file.
void expect_old_file_survives(const std::filesystem::path& folder, std::size_t too_many_bytes) {
  ASSERT_TRUE(write_file_atomically(folder / "f", "old"));
  const std::vector<float> big(too_many_bytes / sizeof(float));
  const std::vector<TensorToWrite> tensors{{"w", {static_cast<int64_t>(big.size())}, big, {}}};
  const Status status = write_safetensors(folder / "f", tensors, {});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::io_failure);
  EXPECT_THAT(status.error().message, testing::HasSubstr("unchanged"));
  EXPECT_EQ(test::read_plain(folder / "f"), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
}

TEST(AtomicFile, FileSizeLimitLeavesTheOldFile) {
  const TempFolder folder;
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  struct rlimit limited = before;
  limited.rlim_cur = 1 << 20;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limited), 0);
  expect_old_file_survives(folder.path(), 2 << 20);
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, old_handler);
}

TEST(AtomicFile, FullDiskLeavesTheOldFile) {
  const TempFolder folder;
  if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=1m") != 0)
    GTEST_SKIP() << "a small file system cannot be mounted here (" << std::strerror(errno)
                 << "); FileSizeLimitLeavesTheOldFile covers the write error";
  expect_old_file_survives(folder.path(), 2 << 20);
  EXPECT_TRUE(write_file_atomically(folder / "f", "new"));  // and there is room again
  ::umount(folder.path().c_str());
}

TEST(AtomicFile, StaleTemporariesGoOwnAndForeignFilesStay) {
  const TempFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    auto file = AtomicFile::create(folder / "f");
    if (file && file->write("half")) ::kill(::getpid(), SIGKILL);
    ::_exit(1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  auto mine = AtomicFile::create(folder / "g");
  ASSERT_TRUE(mine);
  test::write_plain(folder / ".other.rat-tmp", "not ours");
  ASSERT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 3);
  remove_stale_temporaries(folder.path());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 2);
  EXPECT_TRUE(mine->commit());
}

TEST(Sha256, PublishedVectorsAndAnySplit) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  const std::string text(200, 'q');
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    Sha256 hash;
    hash.update(std::string_view(text).substr(0, cut));
    hash.update(std::string_view(text).substr(cut));
    ASSERT_EQ(hash.hex(), sha256_hex(text)) << cut;
  }
}

}  // namespace
}  // namespace rat
