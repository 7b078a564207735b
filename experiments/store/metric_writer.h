// Metric points on their way into the database: a batch becomes rows of `metrics` and an updated `metric_summary`.
#pragma once

#include <SQLiteCpp/SQLiteCpp.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace rat::store {

// One logged value. Runs and metrics are indices into the queue's name tables, so a waiting point is 40 bytes and a
// full disk can be waited out with millions of them.
struct LoggedPoint {
  int32_t run = 0, metric = 0;
  int64_t step = 0;
  double value = 0, wall_s = 0;
};

struct Progress {
  int64_t steps_done = 0;
  double at = 0;  // Unix seconds
};

// Names seen so far; indices never change. One owner at a time.
class NameTable {
 public:
  int32_t index_of(const std::string& name) {
    const auto [at, is_new] = index_.try_emplace(name, static_cast<int32_t>(names_.size()));
    if (is_new) names_.push_back(name);
    return at->second;
  }
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::map<std::string, int32_t> index_;
  std::vector<std::string> names_;
};

// Within the caller's transaction. A point logged twice for one step replaces the first. Points of runs that are not
// in the database (purged meanwhile) are left out; returns how many.
int64_t write_points(SQLite::Database& db, std::span<const LoggedPoint> points,
                     const std::vector<std::string>& run_names, const std::vector<std::string>& metric_names);
void write_progress(SQLite::Database& db, const std::string& run_id, const Progress& progress);

}  // namespace rat::store
