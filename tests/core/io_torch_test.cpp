// PyTorch checkpoints: what PyTorch wrote is read value for value, what we write is read back bit for bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "core/io/torch_file.h"
#include "tests/core/io_temp_folder.h"
#include "tests/core/io_zip_builder.h"

namespace rat {
namespace {

using test::TempFolder;
using testing::ElementsAre;
using testing::HasSubstr;

std::filesystem::path small_file() { return std::filesystem::path(RAT_TEST_DATA) / "torch_small.pth"; }

TorchFile open_small() {
  auto file = TorchFile::open(small_file());
  EXPECT_TRUE(file) << (file ? "" : file.error().message);
  return *std::move(file);
}

const TorchFile::Dictionary& dictionary(const TorchFile& file, const std::string& path) {
  for (const auto& one : file.dictionaries())
    if (one.path == path) return one;
  ADD_FAILURE() << "no dict '" << path << "'";
  return file.dictionaries().front();
}

// tests/golden/torch_small.py: element i is i / 8 - 1.
float ramp(int64_t i) { return static_cast<float>(i) / 8 - 1; }

TEST(TorchFile, FindsEveryDictOfTensorsInAFileThatPyTorchWrote) {
  const TorchFile file = open_small();
  std::vector<std::string> paths;
  for (const auto& one : file.dictionaries()) paths.push_back(one.path);
  EXPECT_THAT(paths, ElementsAre("task", "optimizer.state.0"));
  const auto& task = dictionary(file, "task");
  EXPECT_EQ(task.tensors.size(), 11u);
  EXPECT_EQ(task.tensors.at("bf16").dtype, DType::bf16);
  EXPECT_THAT(task.tensors.at("transposed").shape, ElementsAre(4, 6));
  EXPECT_THAT(task.tensors.at("scalar").shape, ElementsAre());
  EXPECT_THAT(task.tensors.at("empty").shape, ElementsAre(0, 7));
}

TEST(TorchFile, ReadsEveryFormatAndLayout) {
  const TorchFile file = open_small();
  const auto& task = dictionary(file, "task");
  for (const char* name : {"f32", "f64", "f16", "bf16", "marked", "parameter"}) {
    const auto values = file.read_floats(task, name);
    ASSERT_TRUE(values) << values.error().message;
    ASSERT_EQ(static_cast<int64_t>(values->size()), task.tensors.at(name).count()) << name;
    for (std::size_t i = 0; i < values->size(); ++i) EXPECT_EQ((*values)[i], ramp(static_cast<int64_t>(i))) << name;
  }
  const auto transposed = *file.read_floats(task, "transposed");
  for (int64_t row = 0; row < 4; ++row)
    for (int64_t col = 0; col < 6; ++col)
      EXPECT_EQ(transposed[static_cast<std::size_t>(row * 6 + col)], ramp(col * 4 + row));
  EXPECT_THAT(*file.read_floats(task, "part"), ElementsAre(ramp(9), ramp(10), ramp(13), ramp(14), ramp(17), ramp(18)));
  EXPECT_THAT(*file.read_floats(task, "scalar"), ElementsAre(2.5f));
  EXPECT_THAT(*file.read_floats(task, "empty"), ElementsAre());
  const auto whole_numbers = file.read_floats(task, "i64");
  ASSERT_FALSE(whole_numbers);
  EXPECT_THAT(whole_numbers.error().message, HasSubstr("'i64' holds I64"));
  EXPECT_FALSE(file.read_floats(task, "absent"));
}

TEST(TorchFile, KeepsTheSettingsBesideTheWeights) {
  const TorchFile file = open_small();
  EXPECT_EQ(file.settings().at("config.model.backbone.num_layers"), "2");
  EXPECT_EQ(file.settings().at("config.model.backbone.ln"), "rmsnorm");
  EXPECT_EQ(file.settings().at("config.lr"), "0.0008");
  EXPECT_EQ(file.settings().at("config.resume"), "false");
  EXPECT_EQ(file.settings().at("step"), "70000");
}

TEST(TorchFile, WhatWeWriteComesBackBitForBit) {
  const TempFolder folder;
  const float nan = std::bit_cast<float>(0x7fc12345u), inf = std::numeric_limits<float>::infinity();
  const std::vector<float> odd{-0.0f, nan, inf, -inf, 1e-45f, 3.25f}, one{7.0f}, wide(1000, 0.5f);
  const std::vector<TensorToWrite> tensors{
      {"a.weight", {2, 3}, odd, {}}, {"b", {}, one, {}}, {"none", {0, 3}, {}, {}}, {"wide", {1000}, wide, {}}};
  for (const std::string key : {"", "task"}) {
    const auto path = folder / ("written" + key + ".pt");
    const Status written = write_torch_file(path, tensors, key);
    ASSERT_TRUE(written) << written.error().message;
    EXPECT_EQ(*weights_format(path), WeightsFormat::torch_zip);
    auto file = TorchFile::open(path);
    ASSERT_TRUE(file) << file.error().message;
    ASSERT_EQ(file->dictionaries().size(), 1u);
    EXPECT_EQ(file->dictionaries().front().path, key);
    for (const TensorToWrite& tensor : tensors) {
      EXPECT_EQ(file->dictionaries().front().tensors.at(tensor.name).shape, tensor.shape);
      const auto values = file->read_floats(file->dictionaries().front(), tensor.name);
      ASSERT_TRUE(values) << values.error().message;
      ASSERT_EQ(values->size(), tensor.f32.size());
      EXPECT_TRUE(values->empty() || std::memcmp(values->data(), tensor.f32.data(), tensor.f32.size_bytes()) == 0)
          << tensor.name;
    }
  }
}

TEST(TorchFile, EqualWeightsGiveEqualFiles) {
  const TempFolder folder;
  const std::vector<float> values{1, 2, 3};
  const std::vector<TensorToWrite> tensors{{"x", {3}, values, {}}};
  ASSERT_TRUE(write_torch_file(folder / "a.pt", tensors));
  ASSERT_TRUE(write_torch_file(folder / "b.pt", tensors));
  EXPECT_EQ(test::read_plain(folder / "a.pt"), test::read_plain(folder / "b.pt"));
}

TEST(TorchFile, WritingRefusesWhatCannotBeReadBack) {
  const TempFolder folder;
  const std::vector<float> values{1, 2, 3};
  EXPECT_FALSE(write_torch_file(folder / "a.pt", std::vector<TensorToWrite>{{"x", {4}, values, {}}}));
  EXPECT_FALSE(
      write_torch_file(folder / "a.pt", std::vector<TensorToWrite>{{"x", {3}, values, {}}, {"x", {3}, values, {}}}));
  EXPECT_FALSE(write_torch_file(folder / "no" / "a.pt", std::vector<TensorToWrite>{{"x", {3}, values, {}}}));
  EXPECT_FALSE(std::filesystem::exists(folder / "a.pt"));
}

TEST(TorchFile, TheFormatIsToldByContentNotByName) {
  const TempFolder folder;
  const std::vector<float> values{1};
  ASSERT_TRUE(write_safetensors(folder / "weights.pt", std::vector<TensorToWrite>{{"x", {1}, values, {}}}, {}));
  EXPECT_EQ(*weights_format(folder / "weights.pt"), WeightsFormat::safetensors);
  test::write_plain(folder / "text.safetensors", "just some text, nothing else");
  EXPECT_EQ(*weights_format(folder / "text.safetensors"), WeightsFormat::unknown);
  test::write_plain(folder / "empty.pt", "");
  EXPECT_EQ(*weights_format(folder / "empty.pt"), WeightsFormat::unknown);
  EXPECT_FALSE(weights_format("/dev/zero"));
  EXPECT_FALSE(weights_format(folder.path()));
  EXPECT_FALSE(weights_format(folder / "absent"));
}

TEST(TorchFile, TheOldFormatIsRefusedWithAWayOut) {
  const TempFolder folder;
  test::write_plain(folder / "old.pt", std::string("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15));
  const auto file = TorchFile::open(folder / "old.pt");
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message, HasSubstr("before version 1.6"));
  EXPECT_THAT(file.error().message, HasSubstr("torch.save(torch.load("));
}

TEST(TorchFile, DeflatedEntriesAreReadToo) {
  // 64 zeros, deflated by zlib: 63 60 a0 0c 00 00.
  const TempFolder folder;
  const std::string packed("\x63\x60\xa0\x0c\x00\x00", 6);
  const std::string zip = test::zip_of(
      {{.name = "a/data.pkl", .bytes = test::dict_of(test::pickled({.shape = test::integer(16), .count = 16}))},
       {.name = "a/data/0",
        .bytes = packed,
        .method = 8,
        .announced = 64,
        .crc = test::crc32_of(std::string(64, '\0'))}});
  test::write_plain(folder / "packed.pt", zip);
  auto file = TorchFile::open(folder / "packed.pt");
  ASSERT_TRUE(file) << file.error().message;
  const auto values = file->read_floats(file->dictionaries().front(), "w");
  ASSERT_TRUE(values) << values.error().message;
  EXPECT_EQ(*values, std::vector<float>(16, 0.0f));
}

}  // namespace
}  // namespace rat
