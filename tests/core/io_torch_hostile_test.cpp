// Damaged and hostile checkpoints: each is refused with a sentence, at once, and nothing in them is ever run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>

#include "core/io/pickle_reader.h"
#include "core/io/torch_file.h"
#include "tests/core/io_temp_folder.h"
#include "tests/core/io_zip_builder.h"

namespace rat {
namespace {

using namespace test;  // the builder's words
using testing::HasSubstr;

// Opens the file and reads every tensor in it; the first problem.
Status read_everything(const std::filesystem::path& path) {
  RAT_ASSIGN(const TorchFile file, TorchFile::open(path));
  for (const auto& dictionary : file.dictionaries())
    for (const auto& [name, info] : dictionary.tensors) RAT_TRY(file.read_floats(dictionary, name));
  return ok();
}

struct Hostile {
  const char* name;
  std::string bytes;
  const char* says;  // part of the sentence
};

std::string call(const std::string& module, const std::string& name, const std::string& argument) {
  return pickle_of(global(module, name) + tuple(text(argument)) + "R");
}

std::string repeat(const std::string& part, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += part;
  return out;
}

std::vector<Hostile> code_that_wants_to_run() {
  std::string with_stack_global = "\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.";
  return {
      {"OsSystem", call("os", "system", "touch /tmp/pwned"), "names the Python object 'os.system'"},
      {"PosixSystem", call("posix", "system", "true"), "'posix.system'"},
      {"Eval", call("builtins", "eval", "1"), "'builtins.eval'"},
      {"Exec", call("builtins", "exec", "1"), "'builtins.exec'"},
      {"Getattr", call("builtins", "getattr", "x"), "'builtins.getattr'"},
      {"Subprocess", call("subprocess", "Popen", "true"), "'subprocess.Popen'"},
      {"CollectEnv", call("torch.utils.collect_env", "run", "true"), "'torch.utils.collect_env.run'"},
      {"TorchLoad", call("torch", "load", "x"), "'torch.load'"},
      {"TorchHubLoad", call("torch.hub", "load", "x"), "'torch.hub.load'"},
      {"NumpyScalar", call("numpy.core.multiarray", "scalar", "x"), "'numpy.core.multiarray.scalar'"},
      {"CodecsEncode", call("_codecs", "encode", "x"), "'_codecs.encode'"},
      {"StackGlobal", with_stack_global, "'os.system'"},
      {"DottedName", pickle_of(global("collections", "OrderedDict.__class__") + ")R"),
       "'collections.OrderedDict.__class__'"},
      {"NearlyListedName", pickle_of(global("torch", "FloatStorageX")), "'torch.FloatStorageX'"},
      {"Instance", pickle_of("(" + text("true") + "ios\nsystem\n"), "instruction INST"},
      {"Object", pickle_of("(" + global("collections", "OrderedDict") + "o"), "instruction OBJ"},
      {"Extension", pickle_of(std::string("\x82\x01", 2)), "instruction EXT1"},
      {"NewObjectEx", pickle_of(global("collections", "OrderedDict") + ")}\x92"), "instruction NEWOBJ_EX"},
      {"TextPersistentId", pickle_of("Pevil\n"), "instruction PERSID"},
      {"CallsADict", pickle_of("})R"), "calls something that is not a name"},
      {"CallsADtype", pickle_of(global("torch", "float32") + ")R"), "arguments it does not take"},
      {"BuildsATensor", dict_of(pickled({}) + "}b"), "gives attributes to something that is not a dict"},
      {"ItemIntoATensor", pickle_of(pickled({}) + text("k") + text("v") + "s"), "something that is not a dict"},
      {"ItemIntoAText", pickle_of(text("t") + text("v") + "a"), "something that is not a list"},
  };
}

std::vector<Hostile> broken_machines() {
  return {
      {"Empty", "", "ends inside an instruction"},
      {"NoProtocol", "}.", "does not begin with a protocol"},
      {"Protocol0", std::string("\x80\x00}.", 4), "pickle protocol 0"},
      {"Protocol9", "\x80\x09}.", "pickle protocol 9"},
      {"NoStop", "\x80\x02}", "ends inside an instruction"},
      {"NothingLeft", pickle_of(""), "ends with 0 values"},
      {"TwoLeft", pickle_of("}}"), "ends with 2 values"},
      {"OpenMark", pickle_of("}("), "ends with 1 values"},
      {"PopsNothing", pickle_of("0"), "takes a value that is not there"},
      {"MarkWithoutGroup", pickle_of("t"), "closes a group that was not opened"},
      {"OddPairs", pickle_of("}(" + text("k") + "u"), "a key without a value"},
      {"TextBeyondTheEnd", pickle_of("X" + le(uint32_t{0xffffffff}) + "x"), "ends inside an instruction"},
      {"Text8BeyondTheEnd", pickle_of("\x8d" + le(~uint64_t{0})), "ends inside an instruction"},
      {"FrameBeyondTheEnd", "\x80\x04\x95" + le(~uint64_t{0}) + ".", "announces a frame"},
      {"LongOf255Bytes", pickle_of("\x8a\xff" + std::string(255, '\x7f')), "whole number of 255 bytes"},
      {"Long4", pickle_of("\x8b" + le(int32_t{0x7fffffff})), "instruction LONG4"},
      {"GlobalWithoutEnd", pickle_of("c" + std::string(1000, 'x')), "a name without an end"},
      {"MemoNeverSet", pickle_of("h\x07"), "never remembered"},
      {"MemoOfTwoBillion", pickle_of("}r" + le(uint32_t{0x7fffffff})), "remembers a value under the number"},
      {"Dup", pickle_of("}22"), "instruction DUP"},
      {"TenMillionInstructions", pickle_of(repeat("N0", 5'000'000)), "more than"},
      {"TwoMillionValues", pickle_of("(" + repeat("}", 2'000'000) + "t"), "holds more than 1048576 values"},
      // Each OrderedDict copies the one before and doubles it: 2^40 entries if it were followed.
      {"MemoBomb",
       pickle_of(
           "}" + text("a") + text("b") + "sq\1" +
           repeat(global("collections", "OrderedDict") + "h\1\x85Rq\2(h\2h\2u" + "(" + repeat("h\2h\2", 100) + "uq\1",
                  20'000)),
       "more than"},
      {"NotADict", pickle_of("]"), "something else than a dict"},
      {"NoTensors", pickle_of("}" + text("a") + integer(1) + "s"), "no tensors"},
      {"DictInItself", pickle_of("}q\1" + text("a") + "h\1s"), "no tensors"},
  };
}

std::vector<Hostile> lying_tensors() {
  const std::string huge = "\x8a\x08" + le(int64_t{1} << 62);
  return {
      {"TraversalKey", dict_of(pickled({.key = "../../etc/passwd"})), "not a plain name"},
      {"AbsoluteKey", dict_of(pickled({.key = "/etc/passwd"})), "not a plain name"},
      {"EmptyKey", dict_of(pickled({.key = ""})), "not a plain name"},
      {"MissingStorage", dict_of(pickled({.key = "7"})), "which the file does not have"},
      {"UnknownStorage", dict_of(pickled({.storage = "ComplexFloatStorage"})), "'torch.ComplexFloatStorage'"},
      {"StorageOfAnotherType", dict_of(pickled({.storage = "DoubleStorage"})), "which has 8 bytes"},
      {"MoreElementsThanBytes", dict_of(pickled({.shape = integer(3), .count = 3})), "which has 8 bytes"},
      {"ShapeBeyondStorage", dict_of(pickled({.shape = integer(3)})), "does not lie in its storage"},
      {"OffsetBeyondStorage", dict_of(pickled({.offset = 1})), "does not lie in its storage"},
      {"NegativeOffset", dict_of(pickled({.offset = -1})), "not a storage with an offset"},
      {"NegativeShape", dict_of(pickled({.shape = integer(-1)})), "not a count"},
      {"NegativeStride", dict_of(pickled({.strides = integer(-1)})), "not a count"},
      {"StrideBeyondStorage", dict_of(pickled({.strides = integer(2)})), "does not lie in its storage"},
      {"RepeatedByStrideZero", dict_of(pickled({.shape = integer(1 << 30), .strides = integer(0)})),
       "does not lie in its storage"},
      {"OverflowingShape", dict_of(pickled({.shape = huge + huge, .strides = integer(0) + integer(0)})),
       "does not lie in its storage"},
      {"OverflowingStride", dict_of(pickled({.strides = huge})), "does not lie in its storage"},
      {"RankOf65", dict_of(pickled({.shape = repeat(integer(1), 65), .strides = repeat(integer(1), 65)})),
       "65 dimensions"},
      {"StridesOfAnotherRank", dict_of(pickled({.strides = integer(1) + integer(1)})), "1 dimensions with 2 strides"},
      {"TextAsShape", dict_of(pickled({.shape = text("2")})), "not a count"},
      {"HugeStorage",
       dict_of(pickle_of("").substr(2, 0) + global("torch._utils", "_rebuild_tensor_v2") + "((" + text("storage") +
               global("torch", "FloatStorage") + text("0") + text("cpu") + huge + "tQ"),
       "has a storage of"},
      {"PersistentIdOfNothing", dict_of("NQ"), "not a tensor storage"},
      {"AttributesOnATensorBeyondItsStorage",
       dict_of(pickled_with_attributes(rebuild(), global("torch", "Tensor"), pickled_arguments({.offset = 1}))),
       "does not lie in its storage"},
      {"AttributesOnAnotherType",
       dict_of(pickled_with_attributes(rebuild(), global("torch", "Size"), pickled_arguments({}))),
       "else than a plain tensor"},
      {"AttributesOnAnotherCall",
       dict_of(pickled_with_attributes(global("collections", "OrderedDict"), global("torch", "Tensor"), ")")),
       "else than a plain tensor"},
      {"AttributesOnNoArguments", dict_of(pickled_with_attributes(rebuild(), global("torch", "Tensor"), "N")),
       "else than a plain tensor"},
      {"AttributesWithoutATensor", dict_of(global("torch._tensor", "_rebuild_from_type_v2") + ")R"),
       "else than a plain tensor"},
      {"TensorWithoutStorage", dict_of(global("torch._utils", "_rebuild_tensor_v2") + "(NNNNNNtR"),
       "not a storage with an offset"},
  };
}

std::vector<Hostile> lying_zips() {
  const std::string good = dict_of(pickled({}));
  const ZipEntry storage{.name = "a/data/0", .bytes = le(1.5f) + le(-2.0f)};
  const std::string whole = checkpoint_of(good);
  const std::string bad_crc_entry =
      zip_of({{.name = "a/data.pkl", .bytes = good}, {.name = "a/data/0", .bytes = storage.bytes, .crc = 1}});
  const std::string packed("\x63\x60\xa0\x0c\x00\x00", 6);  // 64 zeros
  return {
      {"EmptyFile", "", "not a PyTorch checkpoint"},
      {"OnlyTheMagic", "PK\x03\x04", "not a whole zip file"},
      {"NoDirectory", whole.substr(0, whole.size() - 22), "not a whole zip file"},
      {"NoPickle", zip_of({storage}), "not a PyTorch checkpoint"},
      {"TwoPickles", checkpoint_of(good, {{.name = "b/data.pkl", .bytes = good}}), "2 entries"},
      {"PickleTwice", checkpoint_of(good, {{.name = "a/data.pkl", .bytes = good}}), "not a whole zip file"},
      {"TraversalEntry", checkpoint_of(good, {{.name = "../../home/x", .bytes = "x"}}), "points outside"},
      {"AbsoluteEntry", checkpoint_of(good, {{.name = "/etc/x", .bytes = "x"}}), "points outside"},
      {"DosEntry", checkpoint_of(good, {{.name = "C:\\x", .bytes = "x"}}), "points outside"},
      {"ControlCharacters", checkpoint_of(good, {{.name = "a/\x1b[2J", .bytes = "x"}}), "not a plain name"},
      {"Encrypted", checkpoint_of(good, {{.name = "a/x", .bytes = "x", .flags = 1}}), "encrypted"},
      {"UnknownPacking", checkpoint_of(good, {{.name = "a/x", .bytes = "x", .method = 99}}), "not a whole zip file"},
      {"StoredSizeLie", checkpoint_of(good, {{.name = "a/x", .bytes = "x", .announced = 5}}), "announces 5"},
      {"LocalNameDiffers", checkpoint_of(good, {{.name = "a/x", .bytes = "x", .local_name = "a/y"}}),
       "not a whole zip"},
      {"WrongChecksum", bad_crc_entry, "damaged"},
      {"ZipBomb",
       zip_of({{.name = "a/data.pkl", .bytes = good},
               {.name = "a/data/0", .bytes = packed, .method = 8, .announced = 0xfffffffe}}),
       "zip bomb"},
      {"UnpacksToLess",
       zip_of({{.name = "a/data.pkl", .bytes = dict_of(pickled({.shape = integer(32), .count = 32}))},
               {.name = "a/data/0", .bytes = packed, .method = 8, .announced = 128}}),
       "damaged"},
      {"NotDeflate",
       zip_of({{.name = "a/data.pkl", .bytes = good},
               {.name = "a/data/0", .bytes = "\xff\xff\xff\xff", .method = 8, .announced = 8}}),
       "damaged"},
      {"TorchScript", checkpoint_of(good, {{.name = "a/constants.pkl", .bytes = good}}), "TorchScript"},
      {"BigEndian", checkpoint_of(good, {{.name = "a/byteorder", .bytes = "big"}}), "big-endian"},
  };
}

class HostileTorchFile : public testing::TestWithParam<Hostile> {};

TEST_P(HostileTorchFile, IsRefusedWithASentenceAtOnce) {
  const TempFolder folder;
  const Hostile& hostile = GetParam();
  const bool zip = hostile.bytes.starts_with("PK") || std::string_view(hostile.name) == "EmptyFile";
  write_plain(folder / "x.pt", zip ? hostile.bytes : checkpoint_of(hostile.bytes));
  const auto start = std::chrono::steady_clock::now();
  const Status status = read_everything(folder / "x.pt");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ASSERT_FALSE(status) << hostile.name << " was read";
  EXPECT_THAT(status.error().message, HasSubstr(hostile.says));
  EXPECT_THAT(status.error().message, HasSubstr("x.pt"));
  EXPECT_LT(seconds, 10.0);  // 1 s is the promise; sanitizer builds are 10 times slower
}

std::string name_of(const testing::TestParamInfo<Hostile>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Code, HostileTorchFile, testing::ValuesIn(code_that_wants_to_run()), name_of);
INSTANTIATE_TEST_SUITE_P(Machine, HostileTorchFile, testing::ValuesIn(broken_machines()), name_of);
INSTANTIATE_TEST_SUITE_P(Tensor, HostileTorchFile, testing::ValuesIn(lying_tensors()), name_of);
INSTANTIATE_TEST_SUITE_P(Zip, HostileTorchFile, testing::ValuesIn(lying_zips()), name_of);

TEST(TorchFileDamage, TheGoodFileThatTheOthersAreMadeOfIsRead) {
  const TempFolder folder;
  write_plain(folder / "good.pt", checkpoint_of(dict_of(pickled({}))));
  auto file = TorchFile::open(folder / "good.pt");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(*file->read_floats(file->dictionaries().front(), "w"), (std::vector<float>{1.5f, -2.0f}));
}

TEST(TorchFileDamage, TheGoodTensorWithAttributesIsRead) {
  const TempFolder folder;
  const std::string tensor = pickled_with_attributes(rebuild(), global("torch", "Tensor"), pickled_arguments({}));
  write_plain(folder / "good.pt", checkpoint_of(dict_of(tensor)));
  auto file = TorchFile::open(folder / "good.pt");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(*file->read_floats(file->dictionaries().front(), "w"), (std::vector<float>{1.5f, -2.0f}));
}

TEST(TorchFileDamage, TruncationAtEveryByteIsRefused) {
  const TempFolder folder;
  const std::string good = read_plain(std::filesystem::path(RAT_TEST_DATA) / "torch_small.pth");
  ASSERT_GT(good.size(), 1000u);
  for (std::size_t size = 0; size < good.size(); size += 7) {
    write_plain(folder / "x.pt", good.substr(0, size));
    ASSERT_FALSE(read_everything(folder / "x.pt")) << size << " bytes";
  }
}

// Whatever bit flips: a sentence or the same shapes, never a crash or a read beyond the file (the sanitizers watch).
TEST(TorchFileDamage, FlippedBitsNeverCrash) {
  const TempFolder folder;
  const std::string good = read_plain(std::filesystem::path(RAT_TEST_DATA) / "torch_small.pth");
  int refused = 0;
  for (std::size_t at = 0; at < good.size(); at += 3) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 8)));
    write_plain(folder / "x.pt", bad);
    refused += !read_everything(folder / "x.pt");
  }
  EXPECT_GT(refused, 100);
}

TEST(TorchFileDamage, PickleBytesAloneNeverCrash) {
  const std::string good = dict_of(pickled({}));
  for (std::size_t at = 0; at < good.size(); ++at)
    for (const unsigned value : {0u, 1u, 0x28u, 0x52u, 0x62u, 0x71u, 0x81u, 0x93u, 0xffu}) {
      std::vector<char> bytes(good.begin(), good.end());
      bytes[at] = static_cast<char>(value);
      (void)pickle::read(std::move(bytes));
    }
}

TEST(TorchFileDamage, PipesDevicesAndFoldersAreRefusedWithoutBeingRead) {
  const TempFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe.pt").c_str(), 0600), 0);
  for (const std::filesystem::path& path : {folder / "pipe.pt", std::filesystem::path("/dev/zero"), folder.path()})
    EXPECT_FALSE(TorchFile::open(path)) << path;
}

}  // namespace
}  // namespace rat
