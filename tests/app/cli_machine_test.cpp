// rat verify, bench and doctor: documents that other programs read.
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "tests/app/cli_process.h"

namespace rat::test {
namespace {

const std::string golden = RAT_TEST_DATA;

std::set<std::string> keys(const nlohmann::json& object) {
  std::set<std::string> names;
  for (const auto& [key, value] : object.items()) names.insert(key);
  return names;
}

// Overwrites the first float of a tensor.
std::string with_damaged_tensor(std::string bytes, const std::string& name) {
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const nlohmann::json json = nlohmann::json::parse(bytes.substr(8, header));
  const float wrong = 1e3f;
  std::memcpy(bytes.data() + 8 + header + json.at(name).at("data_offsets").at(0).get<uint64_t>(), &wrong, sizeof wrong);
  return bytes;
}

TEST(CliVerify, GoldenFilesPassAndADamagedCopyFails) {
  const Workspace work;
  const nlohmann::json report =
      work.json({"verify", golden + "/mixers.safetensors", golden + "/models.safetensors"});
  EXPECT_EQ(report["device"], "cpu");
  EXPECT_EQ(report["dtype"], "f32");
  std::string layer_case;
  for (const auto& one : report["cases"]) {
    for (const char* key : {"name", "kind", "pass", "output_err", "grad_err", "decode_err", "train_err"})
      EXPECT_TRUE(one.contains(key)) << key;
    EXPECT_TRUE(one["pass"].get<bool>()) << one.dump();
    if (one["kind"] == "rat") layer_case = one["name"];
  }
  ASSERT_NE(layer_case, "");

  write_file(work.path("damaged.safetensors"),
             with_damaged_tensor(read_file(golden + "/mixers.safetensors"), layer_case + "/y"));
  const nlohmann::json damaged = work.json({"verify", work.path("damaged.safetensors").string()}, 1);
  for (const auto& one : damaged["cases"]) {
    if (one["name"] != layer_case) continue;
    EXPECT_FALSE(one["pass"].get<bool>());
  }
}

TEST(CliVerify, AnUnreadableFileIsOneSentence) {
  const Workspace work;
  write_file(work.path("half.safetensors"), read_file(golden + "/mixers.safetensors").substr(0, 1000));
  for (const std::string& file : {work.path("absent.safetensors").string(), work.path("half.safetensors").string()}) {
    const nlohmann::json document = work.json({"verify", file}, 1);
    EXPECT_NE(document["error"].get<std::string>().find(file), std::string::npos) << document.dump();
  }
}

TEST(CliBench, RowsHaveTheDocumentedForm) {
  const Workspace work;
  const std::vector<std::string> small{"--seq-len", "64", "--d-model", "32", "--heads", "2", "--chunk", "8"};
  const std::vector<std::pair<std::string, std::set<std::string>>> expected{
      {"layer", {"train", "prefill"}}, {"model", {"train", "prefill", "decode"}}, {"decode", {"decode"}}};
  for (const auto& [what, rows] : expected) {
    std::vector<std::string> arguments{"bench", what, "--kind", "rat"};
    arguments.insert(arguments.end(), small.begin(), small.end());
    const nlohmann::json document = work.json(arguments);
    ASSERT_TRUE(document.is_array());
    std::set<std::string> seen;
    for (const auto& row : document) {
      seen.insert(row["what"]);
      const std::set<std::string> present = keys(row);
      for (const char* key : {"what", "kind", "chunk", "seq_len", "batch", "d_model", "heads", "dtype", "device",
                              "median_ms", "q1_ms", "q3_ms", "tokens_per_s", "peak_bytes"})
        EXPECT_TRUE(present.contains(key)) << key;
      EXPECT_GT(row["median_ms"], 0.0);
      EXPECT_LE(row["q1_ms"], row["median_ms"]);
      EXPECT_LE(row["median_ms"], row["q3_ms"]);
      EXPECT_EQ(row["device"], "cpu");
    }
    EXPECT_EQ(seen, rows) << what;
  }
}

TEST(CliBench, ADeviceThatIsNotThereIsNotReplaced) {
  const Workspace work;
  const Outcome outcome = work.rat({"bench", "layer", "--device", "cuda", "--seq-len", "64"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.err.find("cuda"), std::string::npos) << outcome.err;
  EXPECT_EQ(outcome.out, "");
}

TEST(CliDoctor, NamesWhatIsMissingAndWhatItCosts) {
  const Workspace work;
  const nlohmann::json report = work.json({"doctor"});
  std::set<std::string> subjects;
  int warnings = 0;
  for (const auto& check : report["checks"]) {
    subjects.insert(check["subject"]);
    EXPECT_NE(check["finding"], "");
    EXPECT_EQ(check["advice"] != "", !check["ok"].get<bool>()) << "advice with every warning: " << check.dump();
    warnings += check["ok"].get<bool>() ? 0 : 1;
  }
  for (const char* subject :
       {"CPU", "SIMD", "oneDNN", "memory", "GPU", "CUDA toolkit", "window program", "database", "disk", "figure fonts"})
    EXPECT_TRUE(subjects.contains(subject)) << subject;
  EXPECT_EQ(report["warnings"], warnings);
}

TEST(CliDoctor, SaysWhenTheDatabaseIsForeign) {
  const Workspace work;
  write_file(work.database(), "not a database at all, only text that is long enough to look at");
  const nlohmann::json report = work.json({"doctor"});
  bool warned = false;
  for (const auto& check : report["checks"])
    warned = warned || (check["subject"] == "database" && !check["ok"].get<bool>());
  EXPECT_TRUE(warned);
}

}  // namespace
}  // namespace rat::test
