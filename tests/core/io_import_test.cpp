// Taking over weights: names, shapes and settings of the file against the model, all or nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/io/published_config.h"
#include "core/io/torch_file.h"
#include "core/io/weight_import.h"
#include "tests/core/io_temp_folder.h"

namespace rat {
namespace {

using test::TempFolder;
using testing::Contains;
using testing::HasSubstr;
using State = MappingRow::State;

ModelConfig config_of(const std::string& layers) {
  ModelConfig config;
  config.vocab = 11;
  config.d_model = 16;
  config.heads = 4;
  config.groups = 2;
  config.ffn_mult = 3;
  config.layers = *parse_layers(layers);
  return config;
}

std::unique_ptr<Model> make_model(const ModelConfig& config, uint64_t seed = 1) {
  auto model = Model::create(config, seed);
  EXPECT_TRUE(model) << (model ? "" : model.error().message);
  return *std::move(model);
}

// The tensors of a model under changed names.
struct Renamed {
  std::vector<TensorToWrite> tensors;
  template <class Rename>
  Renamed(const Model& model, Rename rename) {
    for (const Parameter& parameter : model.parameters())
      tensors.push_back({rename(parameter.name), parameter.shape, parameter.value, {}});
  }
};

ImportPlan plan_of(const WeightFile& file, const ImportChoices& choices) {
  auto plan = plan_import(file, choices);
  EXPECT_TRUE(plan) << (plan ? "" : plan.error().message);
  return plan ? *std::move(plan) : ImportPlan{};
}

WeightFile open_file(const std::filesystem::path& path) {
  auto file = WeightFile::open(path);
  EXPECT_TRUE(file) << (file ? "" : file.error().message);
  return *std::move(file);
}

void expect_same_weights(const Model& a, const Model& b) {
  ASSERT_EQ(a.parameters().size(), b.parameters().size());
  for (std::size_t i = 0; i < a.parameters().size(); ++i)
    EXPECT_TRUE(std::ranges::equal(a.parameters()[i].value, b.parameters()[i].value)) << a.parameters()[i].name;
}

TEST(Import, EveryKindOfLayerComesBackFromBothFormats) {
  const TempFolder folder;
  for (const std::string layers : {"rat:4*2", "attention*2", "swa:3*2", "rnn*2", "rat:4,swa:8"}) {
    const ModelConfig config = config_of(layers);
    const auto model = make_model(config);
    const Renamed tensors(*model, [](const std::string& name) { return name; });
    ASSERT_TRUE(write_safetensors(folder / "w.bin", tensors.tensors, {}));
    ASSERT_TRUE(write_torch_file(folder / "w.pt", tensors.tensors));
    for (const auto& path : {folder / "w.bin", folder / "w.pt"}) {
      const WeightFile file = open_file(path);
      const ImportPlan plan = plan_of(file, {.layers = layers, .heads = 4});
      EXPECT_TRUE(plan.fits(false)) << layers;
      EXPECT_EQ(plan.model.vocab, 11);
      EXPECT_EQ(plan.model.ffn_mult, 3);
      EXPECT_EQ(plan.model.groups, 2);
      const auto loaded = make_model(plan.model, 2);
      ASSERT_TRUE(load_import(file, plan, *loaded));
      expect_same_weights(*model, *loaded);
    }
  }
}

TEST(Import, PrefixesOfCompiledAndWrappedModelsAreTakenOff) {
  const TempFolder folder;
  const auto model = make_model(config_of("rat:4*2"));
  const Renamed tensors(*model, [](std::string name) {
    if (const auto at = name.find("seq_layer."); at != std::string::npos) name.insert(at, "_orig_mod.");
    return "module." + name;
  });
  ASSERT_TRUE(write_torch_file(folder / "w.pth", tensors.tensors, "task"));
  const WeightFile file = open_file(folder / "w.pth");
  EXPECT_THAT(file.notes(), Contains(HasSubstr("dict 'task'")));
  EXPECT_THAT(file.notes(), Contains(HasSubstr("'_orig_mod.'")));
  EXPECT_THAT(file.notes(), Contains(HasSubstr("'module.'")));
  const ImportPlan plan = plan_of(file, {.layers = "rat:4", .heads = 4});
  EXPECT_TRUE(plan.fits(false));
  EXPECT_EQ(plan.rows[1].name, "backbone.layers.0.seq_layer.in_proj.weight");
  EXPECT_EQ(plan.rows[1].name_in_file, "module.backbone.layers.0._orig_mod.seq_layer.in_proj.weight");
}

TEST(Import, GroupsComeFromTheShapes) {
  const TempFolder folder;
  for (const int64_t groups : {1, 2, 4}) {
    ModelConfig config = config_of("rat:4*2");
    config.groups = groups;
    const auto model = make_model(config);
    const Renamed tensors(*model, [](const std::string& name) { return name; });
    ASSERT_TRUE(write_safetensors(folder / "w", tensors.tensors, {}));
    EXPECT_EQ(plan_of(open_file(folder / "w"), {.layers = "rat:4", .heads = 4}).model.groups, groups);
  }
}

TEST(Import, WhatShapesDoNotShowIsAskedForInOneSentence) {
  const TempFolder folder;
  const auto model = make_model(config_of("rat:4,attention"));
  const Renamed tensors(*model, [](const std::string& name) { return name; });
  ASSERT_TRUE(write_safetensors(folder / "w", tensors.tensors, {}));
  const WeightFile file = open_file(folder / "w");
  const auto no_layers = plan_import(file, {.heads = 4});
  ASSERT_FALSE(no_layers);
  EXPECT_THAT(no_layers.error().message, HasSubstr("needs --layers"));
  EXPECT_THAT(no_layers.error().message, HasSubstr("2 layers, 0 of them rnn, 1 with a gate and 1 without"));
  const auto no_heads = plan_import(file, {.layers = "rat:4,attention"});
  ASSERT_FALSE(no_heads);
  EXPECT_THAT(no_heads.error().message, HasSubstr("needs --heads"));
  const auto too_many = plan_import(file, {.layers = "rat:4*3", .heads = 4});
  ASSERT_FALSE(too_many);
  EXPECT_THAT(too_many.error().message, HasSubstr("has 3 layers, the file 2"));
  EXPECT_FALSE(plan_import(file, {.layers = "rat:4,attention", .heads = 3}));
}

TEST(Import, AnRnnNeedsNothingSaid) {
  const TempFolder folder;
  const auto model = make_model(config_of("rnn*3"));
  const Renamed tensors(*model, [](const std::string& name) { return name; });
  ASSERT_TRUE(write_safetensors(folder / "w", tensors.tensors, {}));
  const ImportPlan plan = plan_of(open_file(folder / "w"), {});
  EXPECT_TRUE(plan.fits(false));
  EXPECT_EQ(format_layers(plan.model.layers), "rnn*3");
}

TEST(Import, EveryDifferenceIsListed) {
  const TempFolder folder;
  const auto model = make_model(config_of("rat:4*2"));
  Renamed tensors(*model, [](const std::string& name) { return name; });
  const std::vector<float> odd(30, 1.0f);
  std::erase_if(tensors.tensors, [](const TensorToWrite& one) { return one.name == "head.lm_head.weight"; });
  for (TensorToWrite& one : tensors.tensors)
    if (one.name == "backbone.ln.weight") one.shape = {30}, one.f32 = odd;
  tensors.tensors.push_back({"rotary.inv_freq", {30}, odd, {}});
  ASSERT_TRUE(write_safetensors(folder / "w", tensors.tensors, {}));
  const ImportPlan plan = plan_of(open_file(folder / "w"), {.layers = "rat:4", .heads = 4});
  EXPECT_EQ(plan.count(State::missing), 1);
  EXPECT_EQ(plan.count(State::mis_shaped), 1);
  EXPECT_EQ(plan.count(State::extra), 1);
  EXPECT_FALSE(plan.fits(true));
  for (const MappingRow& row : plan.rows) {
    if (row.state == State::missing) {
      EXPECT_EQ(row.name, "head.lm_head.weight");
    }
    if (row.state == State::extra) {
      EXPECT_EQ(row.name, "rotary.inv_freq");
    }
    if (row.state != State::mis_shaped) continue;
    EXPECT_EQ(row.shape, (std::vector<int64_t>{30}));
    EXPECT_EQ(row.wanted, (std::vector<int64_t>{16}));
  }
}

TEST(Import, ExtraTensorsAreOnlyLeftAloneWhenToldSo) {
  const TempFolder folder;
  const auto model = make_model(config_of("rnn*2"));
  Renamed tensors(*model, [](const std::string& name) { return name; });
  const std::vector<float> more{1.0f};
  tensors.tensors.push_back({"something.else", {1}, more, {}});
  ASSERT_TRUE(write_safetensors(folder / "w", tensors.tensors, {}));
  const ImportPlan plan = plan_of(open_file(folder / "w"), {});
  EXPECT_FALSE(plan.fits(false));
  EXPECT_TRUE(plan.fits(true));
}

TEST(Import, AnUnreadableTensorLeavesTheModelAsItWas) {
  const TempFolder folder;
  const auto model = make_model(config_of("rnn*2"), 1), other = make_model(config_of("rnn*2"), 2),
             untouched = make_model(config_of("rnn*2"), 2);
  const Renamed tensors(*model, [](const std::string& name) { return name; });
  ASSERT_TRUE(write_safetensors(folder / "w", tensors.tensors, {}));
  const WeightFile file = open_file(folder / "w");
  ImportPlan plan = plan_of(file, {});
  plan.model = other->config();
  std::filesystem::resize_file(folder / "w", std::filesystem::file_size(folder / "w") - 4);  // while it is open
  EXPECT_FALSE(load_import(file, plan, *other));
  expect_same_weights(*other, *untouched);
}

TEST(Import, OtherPeoplesFilesAreRefusedWithAReason) {
  const TempFolder folder;
  const std::vector<float> values(4, 1.0f);
  ASSERT_TRUE(write_safetensors(folder / "gpt", std::vector<TensorToWrite>{{"wte.weight", {2, 2}, values, {}}}, {}));
  const auto gpt = WeightFile::open(folder / "gpt");
  ASSERT_FALSE(gpt);
  EXPECT_THAT(gpt.error().message, HasSubstr("names are not those of the published training code"));
  test::write_plain(folder / "text", "not a file of tensors at all");
  const auto text = WeightFile::open(folder / "text");
  ASSERT_FALSE(text);
  EXPECT_THAT(text.error().message, HasSubstr("neither a safetensors file nor a PyTorch checkpoint"));
  ASSERT_TRUE(
      write_safetensors(folder / "only", std::vector<TensorToWrite>{{"embedding.wte.weight", {2, 2}, values, {}}}, {}));
  const auto only = plan_import(open_file(folder / "only"), {.layers = "rnn", .heads = 1});
  ASSERT_FALSE(only);
  EXPECT_THAT(only.error().message, HasSubstr("has no tensor 'backbone.layers.0.hidden_layer.fc1.weight'"));
}

// configs/experiment/fineweb_edu/*.yaml of the published code, as their checkpoints carry them.
std::map<std::string, std::string> published(const std::string& backbone) {
  return {{"config.model.backbone._name_", backbone},
          {"config.model.backbone.num_layers", "4"},
          {"config.model.backbone.d_model", "2048"},
          {"config.model.backbone.interleave_step", "2"},
          {"config.model.backbone.seq_cell._name_", "local_attention"},
          {"config.model.backbone.seq_cell.window_size", "1024"},
          {"config.model.backbone.seq_cell.d_head", "128"},
          {"config.model.backbone.seq_cell1._name_", "rat"},
          {"config.model.backbone.seq_cell1.chunk_size", "16"},
          {"config.model.backbone.seq_cell1.num_head", "16"},
          {"config.model.backbone.seq_cell1.ngroups", "2"},
          {"config.model.embedding.pe._name_", "rope_interrope"},
          {"config.model.embedding.pe.base", "10000"}};
}

TEST(Import, ThePublishedConfigSaysWhatShapesDoNot) {
  const auto interleaved = published_config(published("sequence_interleave"));
  ASSERT_TRUE(interleaved);
  EXPECT_EQ(format_layers(interleaved->layers), "rat:16,swa:1024*2");
  EXPECT_EQ(interleaved->heads, 16);
  EXPECT_EQ(interleaved->groups, 2);
  EXPECT_EQ(interleaved->rope_base, 10000);
  const auto plain = published_config(published("sequence"));
  ASSERT_TRUE(plain);
  EXPECT_EQ(format_layers(plain->layers), "swa:1024*4");
  EXPECT_EQ(plain->heads, 16);  // 2048 / 128
}

TEST(Import, TheOtherNameOfTheSameLayerIsKnown) {
  auto settings = published("sequence_interleave");
  settings["config.model.backbone.seq_cell1._name_"] = "rat_slow";
  const auto config = published_config(settings);
  ASSERT_TRUE(config);
  EXPECT_EQ(format_layers(config->layers), "rat:16,swa:1024*2");
}

// Shapes show neither; the weights would be used in another function.
TEST(Import, AnotherActivationOrNormIsRefusedThoughEveryTensorFits) {
  const auto good = published("sequence");
  EXPECT_TRUE(check_published_config(good));
  for (const auto& [key, only] : std::map<std::string, std::string>{
           {"hidden_cell.act_fn", "gelu"}, {"hidden_cell.ln", "rmsnorm"}, {"ln", "rmsnorm"}}) {
    auto settings = good;
    settings["config.model.backbone." + key] = only;
    EXPECT_TRUE(check_published_config(settings)) << key;
    settings["config.model.backbone." + key] = "fastgelu";
    const Status refused = check_published_config(settings);
    ASSERT_FALSE(refused) << key;
    EXPECT_THAT(refused.error().message, HasSubstr("model.backbone." + key + " = fastgelu"));
    EXPECT_THAT(refused.error().message, HasSubstr("is " + only));
  }
}

TEST(Import, WhatTheConfigInAFileSaysIsUsedOrRefused) {
  const TempFolder folder;
  const auto model = make_model(config_of("rnn*2"));
  const Renamed tensors(*model, [](const std::string& name) { return name; });
  const std::string act = "config.model.backbone.hidden_cell.act_fn", tied = "config.task.tie_embedding";
  ASSERT_TRUE(write_safetensors(folder / "good", tensors.tensors, {{act, "gelu"}, {tied, "true"}}));
  EXPECT_THAT(plan_of(open_file(folder / "good"), {}).findings, Contains(HasSubstr("one tensor there")));
  ASSERT_TRUE(write_safetensors(folder / "untied", tensors.tensors, {{act, "gelu"}, {tied, "false"}}));
  EXPECT_THAT(plan_of(open_file(folder / "untied"), {}).findings, testing::Not(Contains(HasSubstr("one tensor"))));
  ASSERT_TRUE(write_safetensors(folder / "other", tensors.tensors, {{act, "relu"}}));
  const auto other = plan_import(open_file(folder / "other"), {.layers = "rnn"});
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message, HasSubstr("act_fn = relu"));
}

TEST(Import, ADamagedConfigIsNoConfig) {
  for (const auto& [key, value] : published("sequence_interleave")) {
    if (key.find("_name_") == std::string::npos && key.find("num_layers") == std::string::npos) continue;
    if (key.find("embedding") != std::string::npos) continue;
    for (const char* bad : {"", "-1", "nonsense", "1e300", "nan"}) {
      auto settings = published("sequence_interleave");
      settings[key] = bad;
      EXPECT_FALSE(published_config(settings)) << key << " = '" << bad << "'";
    }
  }
  EXPECT_FALSE(published_config({}));
}

}  // namespace
}  // namespace rat
