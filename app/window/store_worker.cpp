#include "app/window/store_worker.h"

namespace rat::app {
namespace {
constexpr qint64 rest_factor = 20;
}

StoreWorker::StoreWorker(StoreWriter& writer) : writer_(writer), agent_(new QObject) {
  qRegisterMetaType<RunList>();
  agent_->moveToThread(&thread_);
  connect(&thread_, &QThread::finished, agent_, &QObject::deleteLater);
  thread_.setObjectName("store reader");
  thread_.start();
}

StoreWorker::~StoreWorker() {
  thread_.quit();
  thread_.wait();
}

void StoreWorker::post(std::function<void()> work) {
  QMetaObject::invokeMethod(agent_, std::move(work), Qt::QueuedConnection);
}

void StoreWorker::read(bool force) {
  if (!force && read_queued_.exchange(true)) return;  // one waiting read is enough
  post([this, force] {
    read_queued_ = false;
    read_now(force);
  });
}

void StoreWorker::write(std::function<Status(StoreWriter&)> edit) {
  post([this, edit = std::move(edit)] {
    if (const Status done = edit(writer_); !done) emit failed(QString::fromStdString(done.error().message));
    read_now(true);
  });
}

StoreReader* StoreWorker::open() {
  if (reader_) return &*reader_;
  Result<StoreReader> opened = StoreReader::open(writer_.path());
  if (!opened) {
    emit failed(QString::fromStdString(opened.error().message));
    return nullptr;
  }
  reader_.emplace(*std::move(opened));
  return &*reader_;
}

void StoreWorker::read_now(bool force) {
  StoreReader* reader = open();
  if (!reader) return;
  // A long table is read less often while a run keeps writing: at most 1/20 of this thread's time.
  if (!force && since_read_.isValid() && since_read_.elapsed() < rest_factor * read_took_ms_) return;
  const Result<int64_t> version = reader->data_version();
  if (version && *version == version_ && !force) return;
  since_read_.start();
  Result<std::vector<RunRow>> runs = reader->runs();
  if (!version || !runs) {
    const QString problem = QString::fromStdString(!version ? version.error().message : runs.error().message);
    if (problem != last_problem_) emit failed(problem);  // said once, not twice a second
    last_problem_ = problem;
    return;
  }
  read_took_ms_ = since_read_.elapsed();
  last_problem_.clear();
  version_ = *version;
  emit runs_read(std::make_shared<const std::vector<RunRow>>(*std::move(runs)));
}

}  // namespace rat::app
