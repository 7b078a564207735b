#include "experiments/store/twins.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <array>
#include <fstream>
#include <string_view>

namespace rat::store {

namespace fs = std::filesystem;

namespace {

bool has_run(const fs::path& database, const std::string& id) {
  try {
    SQLite::Database db(database.string(), SQLite::OPEN_READONLY);
    if (!db.tableExists("runs")) return false;
    SQLite::Statement query(db, "SELECT 1 FROM runs WHERE id = ?");
    query.bind(1, id);
    return query.executeStep();
  } catch (const std::exception&) {
    return true;
  }
}

bool is_sqlite(const fs::path& file) {
  constexpr std::string_view magic("SQLite format 3\0", 16);
  std::array<char, 16> start{};
  std::ifstream stream(file, std::ios::binary);
  return stream.read(start.data(), start.size()) && std::string_view(start.data(), start.size()) == magic;
}

}  // namespace

bool has_twin(const fs::path& database, const std::string& id) {
  std::error_code error;
  const fs::path folder = database.has_parent_path() ? database.parent_path() : fs::path(".");
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    std::error_code unknown;
    if (!entry.is_regular_file(unknown) || fs::equivalent(entry.path(), database, unknown)) continue;
    if (is_sqlite(entry.path()) && has_run(entry.path(), id)) return true;
  }
  return bool(error);
}

}  // namespace rat::store
