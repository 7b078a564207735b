// What the Curves panel and the Trade-off canvas share: the runs they show and the reader that answers for them.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "app/figure/plot_reader.h"

namespace rat::app {

class PlotFeed {
 public:
  // `request` says what to ask for, with the runs as they are then; `show` gets the answers on the UI thread.
  PlotFeed(const std::filesystem::path& database, std::function<PlotRequest()> request,
           std::function<void(std::shared_ptr<const PlotAnswer>)> show)
      : reader_(database), request_(std::move(request)) {
    QObject::connect(&reader_, &PlotReader::answered, &reader_, std::move(show));
  }

  const std::vector<std::string>& runs() const { return runs_; }
  void set_runs(std::vector<std::string> ids) {
    if (ids == runs_) return;
    runs_ = std::move(ids);
    ask(true);
  }
  void set_database(const std::filesystem::path& database) {
    reader_.set_database(database);
    ask(true);
  }
  // force: also when nothing was committed since the last answer.
  void ask(bool force) { reader_.ask(request_(), force); }

 private:
  PlotReader reader_;
  std::function<PlotRequest()> request_;
  std::vector<std::string> runs_;
};

}  // namespace rat::app
