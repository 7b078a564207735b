#include "experiments/store/migrations.h"

#include <fmt/format.h>

#include <array>

#include "experiments/store/database.h"
#include "store_schema.h"  // generated from schema.sql

namespace rat::store {

std::span<const std::string_view> migrations() {
  static constexpr std::array<std::string_view, 1> list{schema_1};
  return list;
}

void migrate(SQLite::Database& db) {
  const auto version = [&] { return db.execAndGet("PRAGMA user_version").getInt(); };
  if (version() == current_version()) return;
  WriteTransaction transaction(db);
  for (int next = version(); next < current_version(); ++next)
    db.exec(std::string(migrations()[static_cast<std::size_t>(next)]));
  db.exec(fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}", application_id, current_version()));
  transaction.commit();
}

}  // namespace rat::store
