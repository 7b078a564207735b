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

// The one row of `rat bench decode` at T = 32, D = 32, H = 4.
nlohmann::json decode_row(const Workspace& work, std::vector<std::string> options) {
  options.insert(options.begin(), {"bench", "decode", "--seq-len", "32", "--d-model", "32", "--heads", "4"});
  const nlohmann::json rows = work.json(options);
  EXPECT_EQ(rows.size(), 1u);
  return rows.at(0);
}

TEST(CliBench, OptionsReachTheLayerAndTheRow) {
  const Workspace work;
  const nlohmann::json plus = decode_row(work, {"--kind", "ratplus", "--dilation", "4", "--window", "2"});
  EXPECT_EQ(plus["layers"], "ratplus:4/w2");
  EXPECT_EQ(plus["window"], 2);
  EXPECT_EQ(decode_row(work, {"--kind", "swa"})["layers"], "swa:128") << "the kind's own window";
  const nlohmann::json shared = decode_row(work, {"--kind", "attention", "--kv-heads", "1", "--tokens", "64"});
  EXPECT_EQ(shared["kv_heads"], 1);
  EXPECT_EQ(shared["batch"], 2) << "--tokens 64 at T = 32";
  const nlohmann::json model = decode_row(work, {"--layers", "rat:16,swa:8*2", "--vocab", "16"});
  EXPECT_EQ(model["layers"], "rat:16,swa:8*2");
  EXPECT_EQ(model["of"], "model");
}

TEST(CliBench, ADtypeIsUsedOrRefusedButNotReplaced) {
  const Workspace work;
  for (const std::string dtype : {"bf16", "bf16x3"}) {
    const Outcome outcome = work.rat({"bench", "decode", "--seq-len", "32", "--d-model", "32", "--dtype", dtype, "--json"});
    const nlohmann::json document = nlohmann::json::parse(outcome.out);
    if (outcome.exit_code == 0)
      EXPECT_EQ(document.at(0)["dtype"], dtype);
    else
      EXPECT_NE(document["error"].get<std::string>().find(dtype), std::string::npos) << document.dump();
  }
}

TEST(CliBench, AnOptionThatTheMixerLacksIsSaid) {
  const Workspace work;
  const Outcome outcome =
      work.rat({"bench", "decode", "--kind", "rnn", "--seq-len", "8", "--d-model", "16", "--window", "4", "--chunk", "2"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_NE(outcome.err.find("--window has no effect on rnn"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("--chunk has no effect on rnn"), std::string::npos) << outcome.err;
}

TEST(CliBench, WrongOptionsAreOneSentenceEach) {
  const Workspace work;
  const std::vector<std::pair<std::vector<std::string>, std::string>> wrong{
      {{"--kind", "attention", "--heads", "4", "--kv-heads", "3"}, "kv_heads must divide heads"},
      {{"--kv-heads", "-1"}, "--kv-heads: '-1' is not a whole number of at least 0"},
      {{"--kind", "ratplus", "--dilation", "0"}, "--dilation: '0'"},
      {{"--kind", "swa", "--window", "-1"}, "--window: '-1'"},
      {{"--kind", "swa", "--window", "wide"}, "--window: 'wide'"},
      {{"--chunk", "0"}, "--chunk: '0'"},
      {{"--tokens", "0"}, "--tokens: '0'"},
      {{"--tokens", "100"}, "--tokens 100 is not a multiple of --seq-len 32"},
      {{"--tokens", "64", "--batch", "2"}, "excludes"},
      {{"--dtype", "f16"}, "f32,bf16,bf16x3"},
      {{"--repetitions", "3"}, "at least 20"},
      {{"--layers", "rat:16*2"}, "use `bench model`"},
      {{"--layers", "rta:16"}, "did you mean 'rat'"},
      {{"--layers", "rat:16", "--kind", "rat"}, "excludes"}};
  for (const auto& [options, hint] : wrong) {
    std::vector<std::string> arguments{"bench", "layer", "--seq-len", "32", "--d-model", "32"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const Outcome outcome = work.rat(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << hint << ": " << outcome.err;
    EXPECT_NE(outcome.err.find(hint), std::string::npos) << outcome.err;
    EXPECT_EQ(outcome.out, "") << hint;
    EXPECT_EQ(outcome.err.find("rat: ", 5), std::string::npos) << "one message: " << outcome.err;
  }
}

TEST(CliBench, ADeviceThatIsNotThereIsNotReplaced) {
  const Workspace work;
  const Outcome outcome = work.rat({"bench", "layer", "--device", "cuda", "--seq-len", "64"});
  if (outcome.exit_code == 0) GTEST_SKIP() << "this machine has the device";
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.err.find("cpu"), std::string::npos) << outcome.err;
  EXPECT_EQ(outcome.out, "");
}

TEST(CliBench, FilesOfSeveralLengthsBecomeAFigureThatItsRecipeRebuilds) {
  const Workspace work;
  std::vector<std::string> files;
  for (const std::string layers : {"rat:8", "attention"})
    for (const std::string T : {"16", "32"}) {
      const Outcome measured = work.rat({"bench", "decode", "--layers", layers, "--seq-len", T, "--d-model", "16",
                                         "--vocab", "16", "--json"});
      ASSERT_EQ(measured.exit_code, 0) << measured.err;
      files.push_back(work.path("bench" + std::to_string(files.size()) + ".json").string());
      write_file(files.back(), measured.out);
    }
  std::vector<std::string> arguments{"figure", "scaling", "--phase", "decode", "--out", work.path("s.csv").string()};
  arguments.insert(arguments.begin() + 2, files.begin(), files.end());
  const nlohmann::json result = work.json(arguments);
  EXPECT_NE(result["note"].get<std::string>().find("decode of a model"), std::string::npos) << result.dump();
  const std::string csv = read_file(work.path("s.csv"));
  for (const char* line : {"0,rat:8,,,16,", "0,rat:8,,,32,", "1,attention,,,16,", "1,attention,,,32,"})
    EXPECT_NE(csv.find(line), std::string::npos) << csv;
  for (const std::string& file : files) std::filesystem::remove(file);
  std::filesystem::remove(work.path("s.csv"));
  EXPECT_EQ(work.rat({"figure", work.path("s.json").string(), "--format", "csv"}).exit_code, 0);
  EXPECT_EQ(read_file(work.path("s.csv")), csv) << "the recipe holds the measurements";
  EXPECT_FALSE(std::filesystem::exists(work.database())) << "no database is needed, and none is made";
}

TEST(CliBench, AFigureOfSomethingElseIsRefused) {
  const Workspace work;
  write_file(work.path("error.json"), R"({"error": "no"})");
  const std::string good = R"([{"what": "train", "of": "layer", "layers": "rnn", "kind": "rnn", "chunk": 0, "window": 0,
    "seq_len": 64, "batch": 1, "d_model": 16, "heads": 2, "groups": 2, "kv_heads": 0, "dtype": "f32", "device": "cpu",
    "repetitions": 20, "median_ms": 2, "q1_ms": 1, "q3_ms": 3, "tokens_per_s": 32000, "peak_bytes": null}])";
  std::string other = good;
  other.replace(other.find("f32"), 3, "bf16");
  write_file(work.path("f32.json"), good);
  write_file(work.path("bf16.json"), other);
  const auto attempt = [&](std::vector<std::string> options) {
    options.insert(options.begin(), {"figure", "scaling"});
    options.insert(options.end(), {"--out", work.path("s.csv").string()});
    const Outcome outcome = work.rat(options);
    EXPECT_NE(outcome.exit_code, 0);
    EXPECT_EQ(outcome.out, "");
    EXPECT_FALSE(std::filesystem::exists(work.path("s.csv"))) << outcome.err;
    return outcome.err;
  };
  const std::string f32 = work.path("f32.json").string(), bf16 = work.path("bf16.json").string();
  const std::string absent = work.path("absent.json").string(), error = work.path("error.json").string();
  EXPECT_NE(attempt({absent}).find("'" + absent + "' cannot be opened"), std::string::npos);
  EXPECT_NE(attempt({f32, error}).find("'" + error + "' is not what `rat bench --json` prints"), std::string::npos);
  EXPECT_NE(attempt({f32, bf16}).find("the dtype is f32"), std::string::npos);
  EXPECT_NE(attempt({f32, f32}).find("two measurements of rnn at T = 64"), std::string::npos);
  EXPECT_NE(attempt({f32, "--phase", "prefill"}).find("draw 'train'"), std::string::npos);
  EXPECT_NE(attempt({f32, "--metric", "memory"}).find("draw the time"), std::string::npos);
  EXPECT_NE(attempt({f32, "--metric", "loss"}).find("loss"), std::string::npos);
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
