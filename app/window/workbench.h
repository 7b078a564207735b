// What the window works on: the open database, the training and inspect sessions, the selection and the subject.
// No widgets. Sessions publish from their threads; a timer here notices news and turns it into signals.
#pragma once

#include <QElapsedTimer>
#include <QObject>
#include <QTimer>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/window/store_worker.h"
#include "experiments/session.h"
#include "views/canvases/view.h"

namespace rat::app {

struct VisibleCanvas {
  std::string_view id;
  const views::View* view = nullptr;
  bool operator==(const VisibleCanvas&) const = default;
};

class Workbench : public QObject {
  Q_OBJECT

 public:
  // A refused database (foreign, newer, unreadable) is the Result's one sentence.
  static Result<std::unique_ptr<Workbench>> open(const std::filesystem::path& database);
  ~Workbench() override;

  const std::filesystem::path& database() const { return writer_->path(); }
  StoreWriter& writer() { return *writer_; }
  StoreWorker& store() { return *store_; }
  TrainingSession& training() { return *training_; }
  InspectSession& inspect() { return *inspect_; }

  const TrainingStatus& status() const { return *status_; }
  const InspectStatus& inspect_status() const { return *inspect_status_; }
  int64_t inspected_tokens() const { return inspect_trace_->token_count(); }
  void turn_layer_dial(int steps);  // 0: back to as trained
  const RunList& runs() const { return runs_; }
  const RunRow* find_run(const std::string& id) const;
  // After a command that the user waits for: looks for the answer every few ms, until it is there or half a second on.
  void expect_answer();
  bool awaits_answer() const { return awaiting_.isValid(); }
  bool busy() const { return status_->activity != SessionActivity::idle; }

  views::Selection& selection() { return selection_; }
  views::Subject subject() const { return subject_; }
  const RunRow* stored_run() const { return stored_run_.get(); }
  void open_run(const std::string& id);  // makes it the subject; the run in training becomes the live subject
  void show_live();

  // Canvases on screen: their probes are merged and sent to the session of the subject.
  void set_visible(std::vector<VisibleCanvas> canvases);
  void fill_frame(std::string_view view_id, views::Frame& frame);
  std::shared_ptr<const TraceSnapshot> trace_of(std::string_view view_id) const;
  std::optional<ModelConfig> subject_model() const;

 signals:
  void status_changed();
  void trace_changed();  // a snapshot, the inspect status or the generation
  void runs_changed();
  void subject_changed();
  void message(QString sentence, bool is_error);

 private:
  explicit Workbench(std::unique_ptr<StoreWriter> writer);
  void connect_commands();
  void poll();
  std::shared_ptr<const TrainingStatus> keep_last_run(std::shared_ptr<const TrainingStatus> next) const;
  void send_probes();
  void report(const std::string& sentence, bool is_error, std::string& last);
  // Makes the inspect session hold the subject's weights, then runs `then` (on any thread).
  void with_subject_weights(std::function<void(InspectSession&)> then);
  bool generate_visible() const;

  std::unique_ptr<StoreWriter> writer_;
  std::unique_ptr<InspectSession> inspect_;  // outlives training_, whose callbacks reach it
  std::unique_ptr<TrainingSession> training_;
  std::unique_ptr<StoreWorker> store_;

  std::shared_ptr<const TrainingStatus> published_status_, status_;
  std::shared_ptr<const InspectStatus> inspect_status_;
  std::shared_ptr<const GenerationStatus> generation_;
  std::shared_ptr<const TraceSnapshot> live_trace_, inspect_trace_;
  std::string last_training_message_, last_inspect_message_, last_generation_message_;
  RunList runs_;

  views::Selection selection_;
  views::CommandSink commands_;
  views::Subject subject_ = views::Subject::live;
  std::shared_ptr<const RunRow> stored_run_;
  std::optional<ModelConfig> stored_model_;
  std::string inspected_text_;
  std::vector<VisibleCanvas> visible_;
  ProbeRequest extra_probes_, sent_live_, sent_inspect_;
  int64_t extra_tokens_ = 0, sent_live_tokens_ = -1, sent_inspect_tokens_ = -1;
  std::string sent_text_;
  QElapsedTimer since_weights_, awaiting_;
  QTimer poll_, read_;
};

}  // namespace rat::app
