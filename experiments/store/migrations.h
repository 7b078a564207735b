// The numbered steps from an empty file to the current schema.
#pragma once

#include <SQLiteCpp/SQLiteCpp.h>

#include <span>
#include <string_view>

namespace rat::store {

// migrations()[i] takes user_version i to i + 1.
std::span<const std::string_view> migrations();
inline int current_version() { return static_cast<int>(migrations().size()); }

// Brings the database to the current version in one transaction: a kill leaves the old version or the new one. Safe
// when several processes do it at once: the version is read again under the write lock.
void migrate(SQLite::Database& db, std::span<const std::string_view> steps = migrations());

}  // namespace rat::store
