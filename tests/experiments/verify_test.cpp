// `rat verify` against the golden files, and against copies of them with one thing changed: every comparator must fail
// when it should, and the reason must name what was wrong.
#include "experiments/verify/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/io/safetensors.h"
#include "experiments/verify/golden_case.h"
#include "kernels/base/dtype.h"
#include "tests/core/io_temp_folder.h"

namespace rat {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

const fs::path golden_folder = RAT_TEST_DATA;

Result<VerifyReport> verify_one(const fs::path& path, const VerifyOptions& options = {}) {
  const std::vector<fs::path> files{path};
  return verify(files, options);
}

VerifyReport report_of(const fs::path& path) {
  auto report = verify_one(path);
  EXPECT_TRUE(report) << (report ? "" : report.error().message);
  return report ? *std::move(report) : VerifyReport{};
}

const CaseResult& find_case(const VerifyReport& report, const std::string& name) {
  for (const CaseResult& one : report.cases)
    if (one.name == name) return one;
  ADD_FAILURE() << "no case " << name;
  return report.cases.front();
}

TEST(Verify, MixersPass) {
  const VerifyReport report = report_of(golden_folder / "mixers.safetensors");
  EXPECT_EQ(report.cases.size(), 10u);
  for (const CaseResult& one : report.cases) {
    EXPECT_TRUE(one.pass) << one.name << ": " << one.reason;
    EXPECT_TRUE(one.output_err && one.grad_err && one.decode_err);
    EXPECT_FALSE(one.train_err);
  }
  EXPECT_EQ(report.passed, 10);
}

TEST(Verify, ModelsPassWithTraining) {
  const VerifyReport report = report_of(golden_folder / "models.safetensors");
  EXPECT_EQ(report.cases.size(), 4u);
  for (const CaseResult& one : report.cases) EXPECT_TRUE(one.pass) << one.name << ": " << one.reason;
  EXPECT_TRUE(find_case(report, "rat").train_err);
  EXPECT_FALSE(find_case(report, "rnn").train_err);
}

TEST(Verify, AwkwardCasesPass) {
  const VerifyReport report = report_of(golden_folder / "awkward.safetensors");
  EXPECT_EQ(report.cases.size(), 27u);
  for (const CaseResult& one : report.cases) EXPECT_TRUE(one.pass) << one.name << ": " << one.reason;
}

TEST(Verify, HybridsAndEdgesOfEveryKindPass) {
  const VerifyReport report = report_of(golden_folder / "hybrids.safetensors");
  EXPECT_EQ(report.cases.size(), 28u);
  for (const CaseResult& one : report.cases) EXPECT_TRUE(one.pass) << one.name << ": " << one.reason;
  for (const char* model : {"all_kinds", "some_without_positions", "ratplus_dense_and_dilated"})
    EXPECT_TRUE(find_case(report, model).train_err) << model;
}

// A golden file in memory that can be changed and written again.
struct Golden {
  nlohmann::json cases;
  std::map<std::string, std::vector<int64_t>> shapes;
  std::map<std::string, std::vector<float>> floats;
  std::map<std::string, std::vector<int32_t>> ints;
};

Golden read_golden(const fs::path& path, const std::string& case_name) {
  const auto file = SafetensorsFile::open(path);
  EXPECT_TRUE(file);
  Golden golden;
  golden.cases[case_name] = nlohmann::json::parse(file->metadata().at("cases")).at(case_name);
  for (const auto& [name, tensor] : file->tensors()) {
    if (!name.starts_with(case_name + "/")) continue;
    golden.shapes[name] = tensor.shape;
    if (tensor.dtype == DType::i32)
      golden.ints[name] = *file->read_ints(name);
    else
      golden.floats[name] = *file->read_floats(name);
  }
  return golden;
}

CaseResult verify_changed(const std::string& file, const std::string& case_name,
                          const std::function<void(Golden&)>& change) {
  Golden golden = read_golden(golden_folder / file, case_name);
  change(golden);
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, values] : golden.floats) tensors.push_back({name, golden.shapes.at(name), values, {}});
  for (const auto& [name, values] : golden.ints) tensors.push_back({name, golden.shapes.at(name), {}, values});
  const test::TempFolder folder;
  EXPECT_TRUE(write_safetensors(folder / "g", tensors, {{"cases", golden.cases.dump()}}));
  return report_of(folder / "g").cases.at(0);
}

void scale_one(std::vector<float>& values, float factor) {
  *std::ranges::max_element(values, {}, [](float v) { return std::abs(v); }) *= factor;
}

TEST(Verify, AnUnchangedCopyPasses) {
  EXPECT_TRUE(verify_changed("mixers.safetensors", "rat_L4", [](Golden&) {}).pass);
  EXPECT_TRUE(verify_changed("models.safetensors", "rat", [](Golden&) {}).pass);
}

struct Change {
  std::string expect;  // part of the reason
  std::function<void(Golden&)> change;
};

void expect_each_fails(const std::string& file, const std::string& case_name, const std::vector<Change>& changes) {
  for (const Change& one : changes) {
    const CaseResult result = verify_changed(file, case_name, one.change);
    EXPECT_FALSE(result.pass) << one.expect;
    EXPECT_THAT(result.reason, HasSubstr(one.expect));
  }
}

TEST(Verify, EveryLayerComparatorFailsOnAWrongFile) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  expect_each_fails("mixers.safetensors", "rat_L4",
                    {{"output error", [](Golden& g) { scale_one(g.floats["rat_L4/y"], 1.001f); }},
                     {"output error nan of y", [=](Golden& g) { g.floats["rat_L4/y"][5] = nan; }},
                     {"output error", [](Golden& g) { std::ranges::fill(g.floats["rat_L4/y"], 0.0f); }},
                     {"of grad_x", [](Golden& g) { scale_one(g.floats["rat_L4/grad_x"], 1.01f); }},
                     {"of grad/in_proj", [](Golden& g) { scale_one(g.floats["rat_L4/grad/in_proj"], 1.01f); }},
                     {"of grad/gate_bias", [](Golden& g) { scale_one(g.floats["rat_L4/grad/gate_bias"], 1.01f); }},
                     {"of grad/norm", [](Golden& g) { scale_one(g.floats["rat_L4/grad/norm"], 1.01f); }},
                     {"of grad/out_proj", [](Golden& g) { scale_one(g.floats["rat_L4/grad/out_proj"], 1.01f); }},
                     {"error nan", [=](Golden& g) { g.floats["rat_L4/x"][0] = nan; }},
                     {"error", [](Golden& g) { g.cases["rat_L4"]["chunk"] = 5; }},
                     {"error", [](Golden& g) { g.cases["rat_L4"]["pos"] = "none"; }},
                     {"decode error", [](Golden& g) { scale_one(g.floats["rat_L4/y"], 1.001f); }}});
}

TEST(Verify, WhatALayerCaseLacksOrAddsIsNamed) {
  expect_each_fails(
      "mixers.safetensors", "rat_L4",
      {{"unknown setting 'stride'", [](Golden& g) { g.cases["rat_L4"]["stride"] = 2; }},
       {"unknown setting 'window'", [](Golden& g) { g.cases["rat_L4"]["window"] = 2; }},
       {"'retention'", [](Golden& g) { g.cases["rat_L4"]["kind"] = "retention"; }},
       {"unknown pos 'alibi'", [](Golden& g) { g.cases["rat_L4"]["pos"] = "alibi"; }},
       {"lack 'chunk'", [](Golden& g) { g.cases["rat_L4"].erase("chunk"); }},
       {"not a count", [](Golden& g) { g.cases["rat_L4"]["chunk"] = -4; }},
       {"not a count", [](Golden& g) { g.cases["rat_L4"]["heads"] = 4.5; }},
       {"must be 1 or more", [](Golden& g) { g.cases["rat_L4"]["seq_len"] = 0; }},
       {"'x' is [2, 64, 32] instead of [2, 65, 32]", [](Golden& g) { g.cases["rat_L4"]["seq_len"] = 65; }},
       {"param/in_proj' is [128, 32]", [](Golden& g) { g.cases["rat_L4"]["groups"] = 4; }},
       {"'param/norm' is missing", [](Golden& g) { g.floats.erase("rat_L4/param/norm"); }},
       {"'param/bias' [32] is no weight",
        [](Golden& g) {
          g.floats["rat_L4/param/bias"] = g.floats["rat_L4/param/norm"];
          g.shapes["rat_L4/param/bias"] = {32};
        }},
       {"'grad/norm' is missing", [](Golden& g) { g.floats.erase("rat_L4/grad/norm"); }},
       {"'grad/other' is not part", [](Golden& g) {
          g.floats["rat_L4/grad/other"] = {1};
          g.shapes["rat_L4/grad/other"] = {1};
        }}});
}

TEST(Verify, EveryModelComparatorFailsOnAWrongFile) {
  expect_each_fails(
      "models.safetensors", "rat",
      {{"of logits", [](Golden& g) { scale_one(g.floats["rat/logits"], 1.01f); }},
       {"loss is over", [](Golden& g) { g.floats["rat/loss"][0] *= 1.0001f; }},
       {"of grad/embedding.wte.weight", [](Golden& g) { scale_one(g.floats["rat/grad/embedding.wte.weight"], 1.01f); }},
       {"of grad/backbone.layers.1.seq_layer.gate_bias",
        [](Golden& g) { scale_one(g.floats["rat/grad/backbone.layers.1.seq_layer.gate_bias"], 1.01f); }},
       {"training error", [](Golden& g) { g.floats["rat/train_loss"].back() += 2e-4f; }},
       {"training error nan",
        [](Golden& g) { g.floats["rat/train_loss"][3] = std::numeric_limits<float>::quiet_NaN(); }},
       {"training error", [](Golden& g) { scale_one(g.floats["rat/trained/head.lm_head.weight"], 1.02f); }},
       {"training error", [](Golden& g) { g.cases["rat"]["optimizer"]["lr"] = 9e-4; }},
       {"training error",
        [](Golden& g) { g.cases["rat"]["optimizer"]["clip"] = 1e9; }},  // AdamW cannot tell two clips that both bind
       {"training error",
        [](Golden& g) {
          g.cases["rat"]["optimizer"]["betas"] = {0.9, 0.9};
        }},
       {"training error", [](Golden& g) { g.cases["rat"]["optimizer"]["weight_decay"] = 0.0; }}});
}

TEST(Verify, WhatAModelCaseLacksOrAddsIsNamed) {
  expect_each_fails("models.safetensors", "rat",
                    {{"unknown setting 'norm'", [](Golden& g) { g.cases["rat"]["norm"] = "layer"; }},
                     {"settings of layer 1 have the unknown setting 'dilation'",
                      [](Golden& g) { g.cases["rat"]["layers"][1]["dilation"] = 2; }},
                     {"'retention'", [](Golden& g) { g.cases["rat"]["layers"][1]["kind"] = "retention"; }},
                     {"groups = 1 beside 2", [](Golden& g) { g.cases["rat"]["layers"][1]["groups"] = 1; }},
                     {"unknown kind 'sgd'", [](Golden& g) { g.cases["rat"]["optimizer"]["kind"] = "sgd"; }},
                     {"constant_lr = false", [](Golden& g) { g.cases["rat"]["optimizer"]["constant_lr"] = false; }},
                     {"unknown setting 'amsgrad'", [](Golden& g) { g.cases["rat"]["optimizer"]["amsgrad"] = true; }},
                     {"'train_loss' is not part of the format", [](Golden& g) { g.cases["rat"].erase("optimizer"); }},
                     {"'train_tokens' is missing", [](Golden& g) { g.ints.erase("rat/train_tokens"); }},
                     {"token 61 is outside", [](Golden& g) { g.ints["rat/tokens"][0] = 61; }},
                     {"token -1 is outside", [](Golden& g) { g.ints["rat/tokens"][0] = -1; }},
                     {"instead of [62, 32]", [](Golden& g) {
                        g.cases["rat"]["vocab"] = 62;
                        g.shapes["rat/logits"] = {2, 48, 62};
                        g.floats["rat/logits"].resize(2 * 48 * 62);
                      }}});
}

TEST(Verify, FilesThatAreNoGoldenFilesAreErrors) {
  const test::TempFolder folder;
  EXPECT_FALSE(verify_one(folder / "none"));
  ASSERT_TRUE(write_safetensors(folder / "plain", {}, {}));
  EXPECT_FALSE(verify_one(folder / "plain"));
  for (const std::string cases : {"{", "[]", "{}", "3"}) {
    ASSERT_TRUE(write_safetensors(folder / "bad", {}, {{"cases", cases}}));
    EXPECT_FALSE(verify_one(folder / "bad")) << cases;
  }
  const std::vector<float> one(1);
  const std::vector<TensorToWrite> tensors{{"orphan/x", {1}, one, {}}};
  ASSERT_TRUE(write_safetensors(folder / "orphan", tensors, {{"cases", R"({"a":{"kind":"rat"}})"}}));
  const auto orphan = verify_one(folder / "orphan");
  ASSERT_FALSE(orphan);
  EXPECT_THAT(orphan.error().message, HasSubstr("orphan/x"));
  VerifyOptions options;
  options.dtype = "f16";
  EXPECT_THAT(verify_one(golden_folder / "mixers.safetensors", options).error().message, HasSubstr("'f16'"));
  options = {};
  options.device = "abacus";
  EXPECT_THAT(verify_one(golden_folder / "mixers.safetensors", options).error().message, HasSubstr("'abacus'"));
  StopFlag stop;
  stop.request();
  options = {};
  options.stop = &stop;
  EXPECT_EQ(verify_one(golden_folder / "mixers.safetensors", options).error().code, ErrorCode::cancelled);
}

TEST(Verify, JsonHasTheFixedForm) {
  VerifyReport report{.device = "cpu", .dtype = "f32", .passed = 1, .failed = 1, .cases = {}};
  report.cases.push_back({.name = "a",
                          .kind = "rat",
                          .pass = true,
                          .output_err = 1e-7,
                          .grad_err = 2e-7,
                          .decode_err = 3e-7,
                          .train_err = {},
                          .reason = ""});
  report.cases.push_back({.name = "b",
                          .kind = "x\xff",
                          .pass = false,
                          .output_err = std::nan(""),
                          .grad_err = {},
                          .decode_err = {},
                          .train_err = {},
                          .reason = "why"});
  const nlohmann::json json = nlohmann::json::parse(to_json(report));
  EXPECT_EQ(json.at("device"), "cpu");
  EXPECT_EQ(json.at("passed"), 1);
  EXPECT_EQ(json.at("cases").at(0).at("output_err"), 1e-7);
  EXPECT_TRUE(json.at("cases").at(0).at("train_err").is_null());
  EXPECT_FALSE(json.at("cases").at(0).contains("reason"));
  EXPECT_EQ(json.at("cases").at(1).at("output_err"), "nan");
  EXPECT_EQ(json.at("cases").at(1).at("reason"), "why");
}

TEST(RelativeError, FailsOnNanAndOnAZeroReference) {
  const std::vector<float> a{3, 4}, b{3, 4.5f}, zero{0, 0}, nan{3, std::nanf("")};
  EXPECT_EQ(relative_error(a, a), 0);
  EXPECT_NEAR(relative_error(b, a), 0.1, 1e-12);
  EXPECT_EQ(relative_error(zero, zero), 0);
  EXPECT_TRUE(std::isinf(relative_error(a, zero)));
  EXPECT_TRUE(std::isnan(relative_error(nan, a)));
  EXPECT_TRUE(std::isnan(relative_error(a, nan)));
  WorstError worst;
  worst.add(0.5, "first");
  worst.add(0.1, "smaller");
  EXPECT_EQ(worst.what(), "first");
  worst.add(std::nan(""), "broken");
  worst.add(9, "after");
  EXPECT_EQ(worst.what(), "broken");
  std::string reason;
  EXPECT_FALSE(within(worst, 1e9, "output", reason));
  EXPECT_THAT(reason, HasSubstr("broken"));
}

TEST(Verify, ReducedPrecisionStaysWithinItsBounds) {
  for (const std::string dtype : {"bf16", "bf16x3", "bf16x6"}) {
    if (!kernels::cpu_supports(*kernels::parse_dtype(dtype))) continue;
    VerifyOptions options;
    options.dtype = dtype;
    double worst = 0;
    for (const char* name :
         {"mixers.safetensors", "models.safetensors", "awkward.safetensors", "hybrids.safetensors"}) {
      const auto report = verify_one(golden_folder / name, options);
      ASSERT_TRUE(report) << report.error().message;
      EXPECT_EQ(report->dtype, dtype);
      EXPECT_GT(report->passed, 0);
      for (const CaseResult& one : report->cases) {
        EXPECT_TRUE(one.pass) << dtype << " " << one.name << ": " << one.reason;
        worst = std::max(worst, one.output_err.value_or(0));
      }
    }
    // Were it f32 in disguise, it would be closer: the dtype of a report tells the truth.
    if (dtype != "bf16x6") {
      EXPECT_GT(worst, dtype == "bf16" ? 1e-3 : 2e-6) << dtype;
    }
  }
}

}  // namespace
}  // namespace rat
