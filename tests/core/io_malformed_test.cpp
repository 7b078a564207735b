// The safetensors reader against files that are not what they claim: each is refused with the reason and, where there
// is one, the tensor's name. The accepted neighbours of each rule are checked too, so that no rule refuses everything.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <chrono>

#include "core/io/safetensors.h"
#include "core/io/safetensors_header.h"
#include "tests/core/io_temp_folder.h"

namespace rat {
namespace {

using test::TempFolder;
using test::write_plain;

std::string length_prefix(uint64_t n) { return {reinterpret_cast<const char*>(&n), sizeof n}; }
std::string file_of(std::string_view header, std::size_t data_bytes) {
  return length_prefix(header.size()) + std::string(header) + std::string(data_bytes, '\1');
}

// One tensor "w" of two F32 with the given fields.
std::string one(std::string_view fields) { return "{\"w\":{" + std::string(fields) + "}}"; }

struct Case {
  std::string what;
  std::string bytes;
  std::string expect;  // part of the message
};

std::vector<Case> malformed() {
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  auto fields = [](std::string what, std::string text, std::string expect) {
    return Case{what, file_of(one(text), 8), expect};
  };
  auto header = [](std::string what, std::string text, std::string expect) {
    return Case{what, file_of(text, 8), expect};
  };
  return {
      {"empty file", "", "0 bytes"},
      {"7 bytes", std::string(7, '\0'), "7 bytes"},
      {"header length 0", length_prefix(0), "does not begin with '{'"},
      {"header length 1 past the end", length_prefix(3) + "{}", "announces a header of 3 bytes"},
      {"header length at the limit, file short", length_prefix(100'000'000) + "{}", "announces a header of 100000000"},
      {"header length over the limit", length_prefix(100'000'001) + "{}", "at most 100000000"},
      {"header length 2^63", length_prefix(uint64_t{1} << 63) + "{}", "at most 100000000"},
      {"header length 2^64-1", length_prefix(~uint64_t{0}) + "{}", "at most 100000000"},
      {"header length 2^64-8, wraps past 8", length_prefix(~uint64_t{0} - 7) + "{}", "at most 100000000"},
      {"byte-order mark", file_of("\xef\xbb\xbf{}", 0), "does not begin with '{'"},
      {"array header", file_of("[]", 0), "does not begin with '{'"},
      {"string header", file_of("\"x\"", 0), "does not begin with '{'"},
      {"only spaces", file_of("    ", 0), "does not begin with '{'"},
      {"NUL ends the text early", file_of(std::string("{}\0{}", 5), 0), "NUL byte"},
      {"text after the object", file_of("{}x", 0), "not valid JSON"},
      {"two objects", file_of("{}{}", 0), "not valid JSON"},
      {"comment", file_of("{/*x*/}", 0), "not valid JSON"},
      {"trailing comma", header("", one(good + ","), "").bytes, "not valid JSON"},
      {"unclosed", file_of("{\"w\":{", 0), "not valid JSON"},
      {"bad UTF-8 in a name", file_of("{\"\xff\xfe\":{" + good + "}}", 8), "not valid JSON"},
      {"overlong UTF-8", file_of("{\"\xc0\xaf\":{" + good + "}}", 8), "not valid JSON"},
      {"lone surrogate", file_of("{\"\\ud800\":{" + good + "}}", 8), "not valid JSON"},
      {"NUL in a name", file_of("{\"a\\u0000b\":{" + good + "}}", 8), "control character"},
      {"1 MB name", file_of("{\"" + std::string(1 << 20, 'n') + "\":{" + good + "}}", 8), "name of 1048576 bytes"},
      {"name one over the limit", file_of("{\"" + std::string(4097, 'n') + "\":{" + good + "}}", 8),
       "name of 4097 bytes"},
      header("tensor twice", "{\"w\":{" + good + "},\"w\":{" + good + "}}", "'w' appears twice"),
      header("metadata twice", "{\"__metadata__\":{},\"__metadata__\":{},\"w\":{" + good + "}}", "appears twice"),
      header("metadata key twice", R"({"__metadata__":{"a":"1","a":"2"}})", "metadata key 'a' twice"),
      header("metadata number", R"({"__metadata__":{"a":1}})", "bad metadata"),
      header("metadata nested", R"({"__metadata__":{"a":{}}})", "bad metadata"),
      header("metadata array", R"({"__metadata__":[]})", "bad metadata"),
      header("metadata null", R"({"__metadata__":null})", "bad metadata"),
      header("tensor is a number", R"({"w":3})", "tensor 'w'"),
      header("tensor is a string", R"({"w":"F32"})", "tensor 'w'"),
      header("tensor is null", R"({"w":null})", "holds null"),
      header("tensor is an array", R"({"w":[1]})", "tensor 'w'"),
      fields("no dtype", R"("shape":[2],"data_offsets":[0,8])", "'w' lacks"),
      fields("no shape", R"("dtype":"F32","data_offsets":[0,8])", "'w' lacks"),
      fields("no offsets", R"("dtype":"F32","shape":[2])", "'w' lacks"),
      fields("unknown field", good + R"(,"stride":[1])", "unknown field 'stride'"),
      fields("field twice", good + R"(,"dtype":"F32")", "'dtype' twice"),
      fields("dtype unknown", R"("dtype":"F31","shape":[2],"data_offsets":[0,8])", "dtype 'F31'"),
      fields("dtype lower case", R"("dtype":"f32","shape":[2],"data_offsets":[0,8])", "dtype 'f32'"),
      fields("dtype of 4 bits, odd count", R"("dtype":"F4","shape":[3],"data_offsets":[0,8])", "dtype 'F4'"),
      fields("dtype is a number", R"("dtype":4,"shape":[2],"data_offsets":[0,8])", "'w'"),
      fields("shape is a number", R"("dtype":"F32","shape":2,"data_offsets":[0,8])", "'w'"),
      fields("shape is an object", R"("dtype":"F32","shape":{},"data_offsets":[0,8])", "'w'"),
      fields("shape nested", R"("dtype":"F32","shape":[[2]],"data_offsets":[0,8])", "'w'"),
      fields("dimension is a string", R"("dtype":"F32","shape":["2"],"data_offsets":[0,8])", "'w'"),
      fields("dimension negative", R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])", "holds the number -2"),
      fields("dimension -0", R"("dtype":"F32","shape":[-0,2],"data_offsets":[0,8])", "holds the number -0"),
      fields("dimension 2.0", R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])", "2.0"),
      fields("dimension 2e0", R"("dtype":"F32","shape":[2e0],"data_offsets":[0,8])", "2e0"),
      fields("dimension 02", R"("dtype":"F32","shape":[02],"data_offsets":[0,8])", "not valid JSON"),
      fields("dimension +2", R"("dtype":"F32","shape":[+2],"data_offsets":[0,8])", "not valid JSON"),
      fields("dimension true", R"("dtype":"F32","shape":[true],"data_offsets":[0,8])", "true or false"),
      fields("dimension 2^63", R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8])",
             "dimension 9223372036854775808"),
      fields("shape product wraps to 2", R"("dtype":"F32","shape":[4611686018427387905,2,2,1],"data_offsets":[0,8])",
             "overflows"),
      fields("bytes wrap to 8", R"("dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8])", "overflows"),
      fields("bytes over int64", R"("dtype":"U8","shape":[4611686018427387904,3],"data_offsets":[0,8])", "overflows"),
      fields("one value too few", R"("dtype":"F32","shape":[1],"data_offsets":[0,8])", "ask for 4"),
      fields("one value too many", R"("dtype":"F32","shape":[3],"data_offsets":[0,8])", "ask for 12"),
      fields("shape empty, 8 bytes", R"("dtype":"F32","shape":[],"data_offsets":[0,8])", "ask for 4"),
      fields("offset 1e1", R"("dtype":"F32","shape":[2],"data_offsets":[0,8e0])", "8e0"),
      fields("offset 2^64", R"("dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551616])", "2^64"),
      fields("offset 2^64-1", R"("dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615])", "'w'"),
      fields("offset -1", R"("dtype":"F32","shape":[2],"data_offsets":[-1,7])", "-1"),
      fields("one offset", R"("dtype":"F32","shape":[2],"data_offsets":[8])", "both ends"),
      fields("three offsets", R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])", "'w'"),
      fields("no offsets inside", R"("dtype":"F32","shape":[2],"data_offsets":[])", "both ends"),
      fields("begins at 1", R"("dtype":"F32","shape":[2],"data_offsets":[1,9])", "covers bytes 1 to 9"),
      fields("end before begin", R"("dtype":"F32","shape":[2],"data_offsets":[8,0])", "covers bytes 8 to 0"),
      fields("end one short", R"("dtype":"F32","shape":[2],"data_offsets":[0,7])", "has 7 bytes"),
      fields("end past the file", R"("dtype":"F32","shape":[4],"data_offsets":[0,16])", "end at byte 16"),
      {"one trailing byte", file_of(one(good), 9), "which has 9 bytes"},
      {"data one byte short", file_of(one(good), 7), "which has 7 bytes"},
      {"no tensors but data", file_of("{}", 8), "end at byte 0"},
      {"hole",
       file_of(
           R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
           8),
       "tensor 'b' covers bytes 4 to 8"},
      {"overlap",
       file_of(
           R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
           8),
       "tensor 'b' covers bytes 4 to 8"},
      {"two tensors on one range", file_of("{\"a\":{" + good + "},\"b\":{" + good + "}}", 8),
       "tensor 'b' covers bytes 0 to 8"},
      {"rank 65",
       file_of(one(R"("dtype":"F32","shape":[2)" +
                   [] {
                     std::string s;
                     for (int i = 0; i < 64; ++i) s += ",1";
                     return s;
                   }() +
                   R"(],"data_offsets":[0,8])"),
               8),
       "more than 64 dimensions"},
      {"depth 100,000 of arrays", file_of("{\"w\":" + std::string(100'000, '['), 8), "tensor 'w'"},
      {"depth 100,000 of objects",
       file_of(
           [] {
             std::string s;
             for (int i = 0; i < 100'000; ++i) s += "{\"dtype\":";
             return s;
           }(),
           8),
       "nests an object"},
  };
}

TEST(Malformed, EveryFileIsRefusedWithItsReason) {
  const TempFolder folder;
  const std::vector<Case> cases = malformed();
  ASSERT_GE(cases.size(), 60u);
  for (const Case& one_case : cases) {
    SCOPED_TRACE(one_case.what);
    const auto path = folder / "bad.safetensors";
    write_plain(path, one_case.bytes);
    const auto begin = std::chrono::steady_clock::now();
    const auto file = SafetensorsFile::open(path);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
    ASSERT_FALSE(file);
    EXPECT_EQ(file.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(file.error().message, testing::HasSubstr(one_case.expect));
    EXPECT_THAT(file.error().message, testing::HasSubstr("bad.safetensors"));
  }
}

TEST(Malformed, NeighboursOfTheRulesAreAccepted) {
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  const std::vector<Case> cases{
      {"plain", one(good), ""},
      {"leading and trailing spaces", " \n" + one(good) + "   ", ""},
      {"fields in another order", one(R"("data_offsets":[0,8],"shape":[2],"dtype":"F32")"), ""},
      {"rank 64",
       one(R"("dtype":"F32","shape":[2)" +
           [] {
             std::string s;
             for (int i = 0; i < 63; ++i) s += ",1";
             return s;
           }() +
           R"(],"data_offsets":[0,8])"),
       ""},
      {"longest name", "{\"" + std::string(4096, 'n') + "\":{" + good + "}}", ""},
      {"scalar", R"({"s":{"dtype":"F64","shape":[],"data_offsets":[0,8]}})", ""},
      {"zero-size tensors between",
       R"({"z":{"dtype":"F32","shape":[0,5],"data_offsets":[4,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[],"data_offsets":[4,8]}})",
       ""},
      {"metadata", R"({"__metadata__":{"format":"pt","":"é"},)" + one(good).substr(1), ""},
      {"unicode name", R"({"g\u00e9":{)" + good + "}}", ""}};
  for (const Case& one_case : cases) {
    SCOPED_TRACE(one_case.what);
    const auto header = parse_safetensors_header(one_case.bytes, 8);
    EXPECT_TRUE(header) << (header ? "" : header.error().message);
  }
}

// A small valid file, cut at every byte and with one byte more: only the whole file opens.
TEST(Malformed, TruncationAtEveryByteIsRefused) {
  const TempFolder folder;
  const auto path = folder / "cut.safetensors";
  const std::vector<float> values(40, 1.5f);
  const std::vector<TensorToWrite> tensors{{"a", {4, 5}, std::span(values).first(20), {}},
                                           {"b", {20}, std::span(values).last(20), {}}};
  ASSERT_TRUE(write_safetensors(path, tensors, {{"note", "whole"}}));
  const std::string whole = test::read_plain(path);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    write_plain(path, whole.substr(0, n));
    ASSERT_FALSE(SafetensorsFile::open(path)) << "cut to " << n << " of " << whole.size();
  }
  write_plain(path, whole + "x");
  EXPECT_FALSE(SafetensorsFile::open(path));
  write_plain(path, whole);
  EXPECT_TRUE(SafetensorsFile::open(path));
}

// Every single-byte change of the header either fails or still describes the file exactly: nothing crashes.
TEST(Malformed, FlippedHeaderBytesNeverCrash) {
  const std::string header = R"({"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  int refused = 0;
  for (std::size_t i = 0; i < header.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = header;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      const auto parsed = parse_safetensors_header(changed, 8);
      if (!parsed)
        ++refused;
      else
        for (const auto& [name, tensor] : parsed->tensors) EXPECT_EQ(tensor.end - tensor.begin, 8u);
    }
  }
  EXPECT_GT(refused, 100);
}

TEST(Malformed, HugeHeadersAreRefusedQuickly) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_FALSE(parse_safetensors_header(fmt::format("{{{}", std::string(5'000'000, ' ')), 8));
  EXPECT_FALSE(parse_safetensors_header(fmt::format("{{\"{}", std::string(5'000'000, 'n')), 8));
  std::string many = "{";
  for (int i = 0; i < 50'000; ++i)
    many += fmt::format("\"{}\":{{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}},", i);
  many.back() = '}';
  const auto parsed = parse_safetensors_header(many, 8);
  ASSERT_FALSE(parsed);
  EXPECT_THAT(parsed.error().message, testing::HasSubstr("covers bytes 0 to 8"));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));  // about 0.3 s; a sanitizer is slow
}

TEST(Malformed, PipesFoldersDevicesAndMissingFilesAreRefusedWithoutWaiting) {
  const TempFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  std::filesystem::create_symlink(folder / "loop", folder / "loop");
  std::filesystem::create_symlink(folder / "nothing", folder / "dangling");
  const std::vector<std::pair<std::filesystem::path, std::string>> cases{
      {folder / "pipe", "a pipe"},     {folder.path(), "a folder"},  {"/dev/zero", "a device"},
      {"/dev/null", "a device"},       {folder / "none", "no file"}, {folder / "loop", "cannot be opened"},
      {folder / "dangling", "no file"}};
  for (const auto& [path, expect] : cases) {
    SCOPED_TRACE(path.string());
    ::alarm(5);  // a reader that waits for the pipe kills the test
    const auto file = SafetensorsFile::open(path);
    ::alarm(0);
    ASSERT_FALSE(file);
    EXPECT_THAT(file.error().message, testing::HasSubstr(expect));
  }
}

TEST(Malformed, NoPermissionIsOneSentence) {
  if (::geteuid() == 0)
    GTEST_SKIP() << "root may read every file, so a file without permissions cannot be tested as root";
  const TempFolder folder;
  write_plain(folder / "closed", "x");
  ASSERT_EQ(::chmod((folder / "closed").c_str(), 0), 0);
  const auto file = SafetensorsFile::open(folder / "closed");
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message, testing::HasSubstr("permission denied"));
}

// The file shrinks after its header was checked: an error that says so, no SIGBUS.
TEST(Malformed, FileShortenedWhileOpenIsAnError) {
  const TempFolder folder;
  const auto path = folder / "shrinks.safetensors";
  const std::vector<float> values(1 << 16, 2.0f);
  const std::vector<TensorToWrite> tensors{{"w", {1 << 16}, values, {}}};
  ASSERT_TRUE(write_safetensors(path, tensors, {}));
  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file);
  ASSERT_EQ(::truncate(path.c_str(), 4096), 0);
  const auto read = file->read_floats("w");
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, ErrorCode::io_failure);
  EXPECT_THAT(read.error().message, testing::AllOf(testing::HasSubstr("shortened"), testing::HasSubstr("'w'")));
}

}  // namespace
}  // namespace rat
