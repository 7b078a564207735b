#include "app/figure/plot_reader.h"

#include <QMetaObject>
#include <algorithm>
#include <chrono>

#include "views/plots/plot_data.h"

namespace rat::app {
namespace {

// The open database and what was read from it.
struct Source {
  std::filesystem::path path;
  std::optional<StoreReader> store;
  std::optional<PlotData> data;
  int64_t version = -1;
};

Status open_source(Source& source, const std::filesystem::path& path) {
  if (source.store && source.path == path) return ok();
  source.data.reset();
  source.store.reset();
  source.version = -1;
  RAT_ASSIGN(StoreReader store, StoreReader::open(path));
  source.store.emplace(std::move(store));
  source.data.emplace(*source.store);
  source.path = path;
  return ok();
}

std::vector<std::string> choose_runs(const std::vector<RunRow>& rows, const RunChoice& choice) {
  std::vector<std::string> of_sweep, with_results;
  for (const RunRow& row : rows) {
    if (!choice.sweep_id.empty() && row.sweep_id == choice.sweep_id) of_sweep.push_back(row.id);
    if (row.steps_done > 0) with_results.push_back(row.id);
  }
  return of_sweep.empty() ? with_results : of_sweep;
}

void find_trained(const std::vector<RunRow>& rows, PlotAnswer& answer) {
  for (const RunRow& row : rows)
    if (row.state == RunState::finished || row.state == RunState::running || row.state == RunState::queued)
      answer.trained.insert({row.spec_hash, row.seed});
}

std::vector<std::string> metrics_of(const std::vector<Recipe>& recipes, PlotData& data) {
  std::set<std::string> metrics;
  std::set<std::string> runs;
  for (const Recipe& recipe : recipes) runs.insert(recipe.runs.begin(), recipe.runs.end());
  for (const std::string& id : runs)
    if (const auto row = data.run(id))
      for (const auto& [metric, summary] : row->metrics) metrics.insert(metric);
  return {metrics.begin(), metrics.end()};
}

PlotAnswer answer_of(PlotRequest request, Source& source) {
  PlotAnswer answer;
  source.data->refresh();
  std::vector<RunRow> rows;
  std::string problem;
  if (request.choice.all_when_empty) {
    if (auto all = source.store->runs())
      rows = *std::move(all);
    else
      problem = all.error().message;
    find_trained(rows, answer);
  }
  for (Recipe& recipe : request.recipes) {
    std::string error = problem;
    if (recipe.runs.empty() && request.choice.all_when_empty) recipe.runs = choose_runs(rows, request.choice);
    std::shared_ptr<const PlotDescription> plot;
    if (error.empty() && !recipe.runs.empty()) {
      auto built = build_plot(recipe, *source.data, request.max_points);
      if (built)
        plot = std::make_shared<PlotDescription>(*std::move(built));
      else
        error = built.error().message;
    }
    answer.plots.push_back(std::move(plot));
    answer.errors.push_back(std::move(error));
  }
  answer.metrics = metrics_of(request.recipes, *source.data);
  answer.recipes = std::move(request.recipes);
  return answer;
}

PlotAnswer all_failed(const PlotRequest& request, const std::string& error) {
  PlotAnswer answer;
  answer.recipes = request.recipes;
  answer.plots.resize(request.recipes.size());
  answer.errors.assign(request.recipes.size(), error);
  return answer;
}

}  // namespace

PlotReader::PlotReader(std::filesystem::path database, QObject* parent)
    : QObject(parent), database_(std::move(database)), thread_([this](std::stop_token stop) { work(stop); }) {}

PlotReader::~PlotReader() = default;

void PlotReader::set_database(const std::filesystem::path& database) {
  const std::lock_guard lock(mutex_);
  database_ = database;
}

void PlotReader::ask(PlotRequest request, bool force) {
  {
    const std::lock_guard lock(mutex_);
    const bool pending_force = next_ && next_->force;
    next_ = Job{std::move(request), database_, force || pending_force};
  }
  wake_.notify_one();
}

void PlotReader::work(const std::stop_token& stop) {
  Source source;
  while (true) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      if (!wake_.wait(lock, stop, [this] { return next_.has_value(); })) return;
      job = *std::move(next_);
      next_.reset();
    }
    const auto begin = std::chrono::steady_clock::now();
    auto answer = std::make_shared<PlotAnswer>();
    if (const Status opened = open_source(source, job.database); !opened) {
      *answer = all_failed(job.request, opened.error().message);
    } else {
      const auto version = source.store->data_version();
      if (!job.force && version && *version == source.version) continue;
      source.version = version ? *version : -1;
      *answer = answer_of(std::move(job.request), source);
    }
    answer->milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    QMetaObject::invokeMethod(
        this, [this, answer] { emit answered(answer); }, Qt::QueuedConnection);
  }
}

}  // namespace rat::app
