// The window's only access to the database: a thread that reads the runs when something changed and does the edits.
#pragma once

#include <QElapsedTimer>
#include <QObject>
#include <QThread>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "experiments/store/store.h"

namespace rat::app {

using RunList = std::shared_ptr<const std::vector<RunRow>>;

class StoreWorker : public QObject {
  Q_OBJECT

 public:
  explicit StoreWorker(StoreWriter& writer);
  ~StoreWorker() override;

  // All return at once. `read` looks at the database only when another commit has happened since the last read.
  void read(bool force = false);
  void write(std::function<Status(StoreWriter&)> edit);
  // Any query; `use` runs on the UI thread if `context` still lives.
  template <class T>
  void query(QObject* context, std::function<T(const StoreReader&)> ask, std::function<void(T)> use) {
    post([this, context, ask = std::move(ask), use = std::move(use)] {
      if (StoreReader* reader = open()) {
        auto answer = std::make_shared<T>(ask(*reader));
        QMetaObject::invokeMethod(
            context, [use, answer] { use(std::move(*answer)); }, Qt::QueuedConnection);
      }
    });
  }

 signals:
  void runs_read(rat::app::RunList runs);
  void failed(QString sentence);

 private:
  void post(std::function<void()> work);
  StoreReader* open();        // worker thread
  void read_now(bool force);  // worker thread

  StoreWriter& writer_;
  QThread thread_;
  QObject* agent_;  // lives on thread_
  std::optional<StoreReader> reader_;
  int64_t version_ = -1;
  QElapsedTimer since_read_;  // worker thread
  qint64 read_took_ms_ = 0;
  QString last_problem_;
  std::atomic<bool> read_queued_ = false;
};

}  // namespace rat::app

Q_DECLARE_METATYPE(rat::app::RunList)
