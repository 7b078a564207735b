// Evaluations in SQL: see schema_2_evaluations.sql. Used inside store/ only.
#pragma once

#include <SQLiteCpp/SQLiteCpp.h>

#include <string>
#include <vector>

#include "experiments/store/evaluation.h"
#include "kernels/base/status.h"

namespace rat::store {

// Replaces the one with the same task, step, settings and data. Inside the caller's transaction.
void insert_evaluation(SQLite::Database& db, int64_t run, const Evaluation& evaluation);
// Of one run, oldest first; `task` empty: all.
std::vector<Evaluation> read_evaluations(SQLite::Database& db, int64_t run, const std::string& task);

}  // namespace rat::store
