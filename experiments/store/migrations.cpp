#include "experiments/store/migrations.h"

#include <fmt/format.h>

#include <array>

#include "experiments/store/database.h"
#include "store_schema.h"  // generated from schema*.sql

namespace rat::store {

std::span<const std::string_view> migrations() {
  static constexpr std::array<std::string_view, 2> list{schema_1, schema_2};
  return list;
}

void migrate(SQLite::Database& db, std::span<const std::string_view> steps) {
  const int newest = static_cast<int>(steps.size());
  const auto version = [&] { return db.execAndGet("PRAGMA user_version").getInt(); };
  if (version() == newest) return;
  WriteTransaction transaction(db);
  for (int next = version(); next < newest; ++next) db.exec(std::string(steps[static_cast<std::size_t>(next)]));
  db.exec(fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}", application_id, newest));
  transaction.commit();
}

}  // namespace rat::store
