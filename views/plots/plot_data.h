// What plots read from the store, remembered between refreshes: only new points are fetched again.
#pragma once

#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "experiments/store/store.h"

namespace rat {

// One thread, like the reader behind it, which must outlive it.
class PlotData {
 public:
  explicit PlotData(const StoreReader& store) : store_(&store) {}

  // Rows are read again after this; points stay.
  void refresh() { rows_.clear(); }
  Result<RunRow> run(const std::string& id_or_name);
  Result<std::vector<Evaluation>> evaluations(const std::string& run_id, const std::string& task) {
    return store_->evaluations(run_id, task);
  }
  // Every stored point, in order of step; valid until the next call.
  Result<std::span<const MetricPoint>> series(const std::string& run_id, const std::string& metric);

 private:
  const StoreReader* store_;
  std::map<std::string, RunRow> rows_;
  std::map<std::pair<std::string, std::string>, std::vector<MetricPoint>> points_;
};

}  // namespace rat
