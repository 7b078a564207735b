// Reads every #include line and enforces the one-way rule kernels <- core <- experiments <- views <- app, and which
// library each folder may know.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

const std::vector<std::string> layers{"kernels", "core", "experiments", "views", "app"};

// Libraries by the pattern of their headers, and the folders that may include them.
struct LibraryRule {
  std::string name;
  std::regex header;
  std::set<std::string> allowed;  // prefixes of repository paths
};

std::vector<LibraryRule> library_rules() {
  return {
      {"Qt", std::regex("^Q[A-Z].*|^Qt.*/.*|qcustomplot.*"), {"app/figure", "app/window"}},
      {"Dear ImGui", std::regex("^imgui.*|^backends/imgui.*"), {"views/canvases", "app/window"}},
      {"SQLite", std::regex("^sqlite3.*|^SQLiteCpp.*"), {"experiments/store"}},
      {"oneDNN", std::regex("^dnnl.*|^oneapi/dnnl.*"), {"kernels"}},
      {"Highway", std::regex("^hwy/.*"), {"kernels"}},
      {"SentencePiece", std::regex("^sentencepiece.*"), {"experiments/data"}},
      {"libzip", std::regex("^zip(conf)?\\.h"), {"core/io"}},
      {"xxHash", std::regex("^xxh.*"), {"core/io"}},
      {"CUDA", std::regex("^cuda.*|^cublas.*|^cub/.*"), {"kernels"}},
      {"JSON", std::regex("^nlohmann/.*"), {"core", "experiments", "views", "app"}},
      {"CLI11", std::regex("^CLI/.*"), {"app"}},
  };
}

bool is_source(const fs::path& path) {
  const auto extension = path.extension();
  return extension == ".h" || extension == ".cpp" || extension == ".cu" || extension == ".cuh";
}

std::size_t layer_of(const std::string& path) {
  for (std::size_t i = 0; i < layers.size(); ++i)
    if (path.rfind(layers[i] + "/", 0) == 0) return i;
  return layers.size();
}

bool starts_with_any(const std::string& path, const std::set<std::string>& prefixes) {
  for (const std::string& prefix : prefixes)
    if (path.rfind(prefix + "/", 0) == 0) return true;
  return false;
}

// The complaint about `header` included from `file` (both relative to the repository), or "".
std::string broken_rule(const std::string& file, const std::string& header) {
  const std::size_t from = layer_of(file), to = layer_of(header);
  if (from < layers.size() && to < layers.size() && to > from) return layers[from] + " must not include " + layers[to];
  if (file.rfind("views/plots/", 0) == 0 && header.rfind("views/canvases/", 0) == 0) return "views/plots must not include views/canvases";
  if (layer_of(file) >= 3 && header.rfind("kernels/", 0) == 0 && header.rfind("kernels/base/", 0) != 0)
    return layers[from] + " may include only kernels/base";
  for (const LibraryRule& rule : library_rules())
    if (std::regex_match(header, rule.header) && !starts_with_any(file, rule.allowed)) return rule.name + " does not belong in this folder";
  return "";
}

TEST(IncludeRules, EveryFileKeepsThem) {
  const fs::path root = RAT_SOURCE_DIR;
  const std::regex include(R"(^\s*#\s*include\s*[<"]([^>"]+)[>"].*)");
  std::size_t files = 0;
  for (const std::string& layer : layers) {
    for (const auto& entry : fs::recursive_directory_iterator(root / layer)) {
      if (!entry.is_regular_file() || !is_source(entry.path())) continue;
      ++files;
      const std::string file = fs::relative(entry.path(), root).generic_string();
      std::ifstream in(entry.path());
      std::string line;
      for (int number = 1; std::getline(in, line); ++number) {
        std::smatch match;
        if (!std::regex_match(line, match, include)) continue;
        const std::string complaint = broken_rule(file, match[1]);
        EXPECT_EQ(complaint, "") << file << ":" << number << ": " << line;
      }
    }
  }
  EXPECT_GT(files, 50u) << "the test looked in the wrong place";
}

TEST(IncludeRules, BreakingThemIsNoticed) {
  EXPECT_NE(broken_rule("kernels/scan/scan.h", "core/model.h"), "");
  EXPECT_NE(broken_rule("core/model.cpp", "sqlite3.h"), "");
  EXPECT_NE(broken_rule("experiments/session.cpp", "QWidget"), "");
  EXPECT_NE(broken_rule("views/plots/plot.cpp", "imgui.h"), "");
  EXPECT_NE(broken_rule("views/canvases/a.cpp", "kernels/matmul/matmul.h"), "");
  EXPECT_NE(broken_rule("app/cli/train.cpp", "QtCore/QString"), "");
  EXPECT_NE(broken_rule("views/plots/plot.cpp", "CLI/CLI.hpp"), "");
  EXPECT_EQ(broken_rule("app/window/main.cpp", "QApplication"), "");
  EXPECT_EQ(broken_rule("core/model.cpp", "kernels/matmul/matmul.h"), "");
}

}  // namespace
