// How run rows and metric values are laid out in SQL, in one place for reading, writing and merging.
#pragma once

#include <SQLiteCpp/SQLiteCpp.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/store/process.h"
#include "experiments/store/store.h"

namespace rat::store {

// A double as SQLite can hold it: see `kind` in schema.sql.
enum class ValueKind : int { as_is = 0, nan = 1, negative_zero = 2 };
ValueKind kind_of(double value);
void bind_value(SQLite::Statement& statement, int value_index, int kind_index, double value);
double read_value(const SQLite::Column& value, const SQLite::Column& kind);

bool larger_is_better(std::string_view metric);
Result<RunState> parse_run_state(std::string_view name);

// Reads runs `where` (SQL over table `runs r`, with one optional text parameter), newest first, states derived.
std::vector<RunRow> read_runs(SQLite::Database& db, const std::filesystem::path& database, const std::string& where,
                              const std::optional<std::string>& parameter = {});

// Ids name folders, so a crafted one must not climb out of ours.
bool valid_run_id(std::string_view id);
// Absolute path of a stored relative one; empty when it would leave the database's folder.
std::filesystem::path stored_path(const std::filesystem::path& database, const std::string& relative);
// A weights file counts only with the optimizer file that belongs to it.
bool checkpoint_is_complete(const std::filesystem::path& weights);

// Row number of a run, or not_found.
Result<int64_t> run_number(SQLite::Database& db, const std::string& id);
int64_t metric_name_id(SQLite::Database& db, const std::string& name);  // creates it when new
// Recomputes metric_summary of one run (one metric, or all when `name_id` is 0) from its points.
void rebuild_summary(SQLite::Database& db, int64_t run, int64_t name_id = 0);

}  // namespace rat::store
