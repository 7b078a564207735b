// Builds plots from the database on a thread of its own. The newest request replaces one that has not begun; the answer
// arrives on the thread that owns this object.
#pragma once

#include <QObject>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "views/plots/recipe.h"

namespace rat::app {

// Which runs a plot of "everything" means.
struct RunChoice {
  bool all_when_empty = false;  // a recipe without runs shows the sweep's, or else every run with results
  std::string sweep_id;
};

struct PlotRequest {
  std::vector<Recipe> recipes;
  RunChoice choice;
  int64_t max_points = 2000;  // a line on screen
};

struct PlotAnswer {
  std::vector<Recipe> recipes;                                // with the runs that were chosen
  std::vector<std::shared_ptr<const PlotDescription>> plots;  // null: see errors
  std::vector<std::string> errors;
  std::vector<std::string> metrics;  // that any of the runs has
  // Spec hash and seed of every run that is finished, running or queued; only filled for all_when_empty.
  std::set<std::pair<std::string, uint64_t>> trained;
  double milliseconds = 0;
};

class PlotReader : public QObject {
  Q_OBJECT

 public:
  explicit PlotReader(std::filesystem::path database, QObject* parent = nullptr);
  ~PlotReader() override;

  void set_database(const std::filesystem::path& database);
  // force: also when nothing was committed since the last answer to the same request.
  void ask(PlotRequest request, bool force);

 signals:
  void answered(std::shared_ptr<const rat::app::PlotAnswer> answer);

 private:
  struct Job {
    PlotRequest request;
    std::filesystem::path database;
    bool force = false;
  };
  void work(const std::stop_token& stop);

  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::optional<Job> next_;
  std::filesystem::path database_;
  std::jthread thread_;  // last: joins before the rest goes
};

}  // namespace rat::app
