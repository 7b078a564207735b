#include "app/window/workbench.h"

#include <algorithm>

#include "views/canvases/layer_dial.h"

namespace rat::app {
namespace {

constexpr int eager_poll_ms = 4, eager_for_ms = 500;
constexpr int poll_ms = 33;            // how soon news is on screen
constexpr int read_ms = 700;           // how often the runs are looked at
constexpr int copy_weights_ms = 2000;  // typed text follows a training run this often
constexpr std::string_view generate_view = "generate";

void merge(ProbeRequest& into, const ProbeRequest& from) {
  for (const ProbeRequest::Item& item : from.items)
    if (std::find(into.items.begin(), into.items.end(), item) == into.items.end()) into.items.push_back(item);
}

}  // namespace

Result<std::unique_ptr<Workbench>> Workbench::open(const std::filesystem::path& database) {
  RAT_ASSIGN(std::unique_ptr<StoreWriter> writer, StoreWriter::open(database));
  return std::unique_ptr<Workbench>(new Workbench(std::move(writer)));
}

Workbench::Workbench(std::unique_ptr<StoreWriter> writer)
    : writer_(std::move(writer)),
      inspect_(std::make_unique<InspectSession>()),
      training_(std::make_unique<TrainingSession>(*writer_)),
      store_(std::make_unique<StoreWorker>(*writer_)),
      status_(training_->status()),
      inspect_status_(inspect_->status()),
      generation_(inspect_->generation()),
      live_trace_(training_->trace()),
      inspect_trace_(inspect_->trace()),
      runs_(std::make_shared<const std::vector<RunRow>>()) {
  connect_commands();
  connect(store_.get(), &StoreWorker::runs_read, this, [this](const RunList& runs) {
    runs_ = runs;
    emit runs_changed();
  });
  connect(store_.get(), &StoreWorker::failed, this, [this](const QString& sentence) { emit message(sentence, true); });
  poll_.setInterval(poll_ms);
  connect(&poll_, &QTimer::timeout, this, [this] { poll(); });
  read_.setInterval(read_ms);
  connect(&read_, &QTimer::timeout, this, [this] { store_->read(); });
  poll_.start();
  read_.start();
  store_->read(true);
}

Workbench::~Workbench() = default;

const RunRow* Workbench::find_run(const std::string& id) const {
  const auto at = std::find_if(runs_->begin(), runs_->end(), [&](const RunRow& run) { return run.id == id; });
  return at == runs_->end() ? nullptr : &*at;
}

void Workbench::connect_commands() {
  commands_.set_probes = [this](const ProbeRequest& request, int64_t tokens) {
    extra_probes_ = request;
    extra_tokens_ = tokens;
  };
  commands_.generate = [this](const std::string& prompt, int64_t count, const GenerationConfig& config) {
    with_subject_weights([=](InspectSession& inspect) { inspect.generate(prompt, count, config); });
  };
  commands_.generate_more = [this](int64_t count) { inspect_->generate_more(count); };
  commands_.set_layers = [this](std::vector<LayerConfig> layers) { inspect_->set_layers(std::move(layers)); };
  commands_.show_sample = [this](int64_t sample) { inspect_->show_sample(sample); };
  commands_.stop_generation = [this] { inspect_->stop_generation(); };
  commands_.set_inspected_text = [this](const std::string& text) {
    inspected_text_ = text;
    since_weights_.invalidate();
    send_probes();
  };
  // Queued: the canvas that asked is in the middle of a frame.
  commands_.open_run = [this](const std::string& id) {
    QMetaObject::invokeMethod(
        this, [this, id] { open_run(id); }, Qt::QueuedConnection);
  };
  commands_.notify = [this](const std::string& text) {
    QMetaObject::invokeMethod(
        this, [this, text] { emit message(QString::fromStdString(text), false); }, Qt::QueuedConnection);
  };
}

void Workbench::with_subject_weights(std::function<void(InspectSession&)> then) {
  if (subject_ == views::Subject::stored) {
    then(*inspect_);
    return;
  }
  InspectSession* inspect = inspect_.get();
  if (busy()) {
    training_->copy_weights([inspect, then](std::shared_ptr<const TrainingSession::LiveWeights> weights) {
      if (!weights) return;
      inspect->use_weights(std::move(weights));
      then(*inspect);
    });
    return;
  }
  const RunRow* run = find_run(status_->run_id);
  if (!run || run->checkpoint.empty()) {
    emit message("There is no model yet: press Start, or open a run below.", false);
    return;
  }
  if (inspect_status_->run_id != run->id || inspect_status_->step != run->steps_done) inspect_->open_run(*run);
  then(*inspect_);
}

void Workbench::open_run(const std::string& id) {
  if (busy() && id == status_->run_id) {
    show_live();
    return;
  }
  const RunRow* run = find_run(id);
  if (!run) return;
  if (run->checkpoint.empty()) {
    emit message(QString("Run %1 has no checkpoint yet, so there are no weights to look at; its curves are shown.")
                     .arg(QString::fromStdString(run->name)),
                 false);
    return;
  }
  const Result<RunSpec> spec = parse_spec(run->spec_json);
  if (!spec) {
    emit message(QString::fromStdString(spec.error().message), true);
    return;
  }
  stored_run_ = std::make_shared<const RunRow>(*run);
  stored_model_ = spec->model;
  subject_ = views::Subject::stored;
  selection_.clear_pins();
  inspect_->open_run(*run);
  sent_inspect_tokens_ = -1;
  send_probes();
  emit subject_changed();
}

void Workbench::turn_layer_dial(int steps) {
  const auto dial = views::layer_dial(*inspect_status_, inspected_tokens());
  if (!dial) return;
  inspect_->set_layers(steps == 0 ? std::vector<LayerConfig>{}
                                  : views::turned_layers(*inspect_status_, views::turned_by(*dial, steps)));
}

void Workbench::show_live() {
  if (subject_ == views::Subject::live) return;
  subject_ = views::Subject::live;
  stored_run_.reset();
  selection_.clear_pins();
  send_probes();
  emit subject_changed();
}

std::optional<ModelConfig> Workbench::subject_model() const {
  if (subject_ == views::Subject::stored) return stored_model_;
  if (status_->run_id.empty()) return std::nullopt;
  return status_->spec.model;
}

void Workbench::set_visible(std::vector<VisibleCanvas> canvases) {
  if (canvases == visible_) return;
  visible_ = std::move(canvases);
  send_probes();
}

bool Workbench::generate_visible() const {
  return std::any_of(visible_.begin(), visible_.end(), [](const VisibleCanvas& c) { return c.id == generate_view; });
}

void Workbench::send_probes() {
  const std::optional<ModelConfig> model = subject_model();
  if (!model) return;
  const bool typed_on_live = subject_ == views::Subject::live && !inspected_text_.empty();
  ProbeRequest live = extra_probes_, inspected;
  int64_t live_tokens = extra_tokens_, inspect_tokens = 0;
  for (const VisibleCanvas& canvas : visible_) {
    const ProbeRequest wanted = canvas.view->probes(selection_, *model);
    const bool to_inspect = subject_ == views::Subject::stored || canvas.id == generate_view || typed_on_live;
    merge(to_inspect ? inspected : live, wanted);
    int64_t& tokens = to_inspect ? inspect_tokens : live_tokens;
    tokens = std::max(tokens, canvas.view->probe_tokens());
  }
  if (subject_ == views::Subject::stored || typed_on_live) live.items.clear();
  if (live != sent_live_ || live_tokens != sent_live_tokens_) {
    training_->set_probes(live, live_tokens);
    sent_live_ = live;
    sent_live_tokens_ = live_tokens;
  }
  inspect_->follow_generation(generate_visible());
  if (inspected != sent_inspect_ || inspect_tokens != sent_inspect_tokens_ || inspected_text_ != sent_text_) {
    inspect_->set_probes(inspected, inspect_tokens, inspected_text_);
    sent_inspect_ = inspected;
    sent_inspect_tokens_ = inspect_tokens;
    sent_text_ = inspected_text_;
  }
  const bool stale = !since_weights_.isValid() || (busy() && since_weights_.elapsed() > copy_weights_ms);
  if (typed_on_live && stale) {
    since_weights_.start();
    with_subject_weights([](InspectSession&) {});
  }
}

std::shared_ptr<const TraceSnapshot> Workbench::trace_of(std::string_view view_id) const {
  const bool typed_on_live = subject_ == views::Subject::live && !inspected_text_.empty();
  return subject_ == views::Subject::stored || view_id == generate_view || typed_on_live ? inspect_trace_ : live_trace_;
}

void Workbench::fill_frame(std::string_view view_id, views::Frame& frame) {
  frame.subject = subject_;
  frame.training = status_;
  frame.trace = trace_of(view_id);
  frame.inspect = inspect_status_;
  frame.generation = generation_;
  frame.stored_run = stored_run_;
  frame.selection = &selection_;
  frame.commands = &commands_;
}

void Workbench::report(const std::string& sentence, bool is_error, std::string& last) {
  if (sentence == last) return;
  last = sentence;
  if (!sentence.empty()) emit message(QString::fromStdString(sentence), is_error);
}

void Workbench::expect_answer() {
  awaiting_.start();
  poll_.setInterval(eager_poll_ms);
}

// A session without a run has no numbers; the window goes on showing those of the run that ended last.
std::shared_ptr<const TrainingStatus> Workbench::keep_last_run(std::shared_ptr<const TrainingStatus> next) const {
  if (next->activity != SessionActivity::idle || !next->run_id.empty() || status_->run_id.empty()) return next;
  auto kept = std::make_shared<TrainingStatus>(*status_);
  kept->activity = SessionActivity::idle;
  // Of a short run the last steps may have come and gone between two looks.
  if (next->last_run_id == kept->run_id && next->last.step > kept->step)
    kept->last = next->last, kept->step = next->last.step;
  kept->queue = next->queue;
  kept->message = next->message;
  kept->message_is_error = next->message_is_error;
  return kept;
}

void Workbench::poll() {
  const SessionActivity before = status_->activity;
  const auto calm_down = [&] {
    if (!awaiting_.isValid() || (status_->activity == before && awaiting_.elapsed() < eager_for_ms)) return;
    awaiting_.invalidate();
    poll_.setInterval(poll_ms);
  };
  if (auto published = training_->status(); published != published_status_) {
    published_status_ = published;
    std::shared_ptr<const TrainingStatus> status = keep_last_run(std::move(published));
    const bool new_run = status->run_id != status_->run_id;
    const bool ended = status->activity != status_->activity || new_run;
    status_ = std::move(status);
    report(status_->message, status_->message_is_error, last_training_message_);
    if (ended) store_->read(true);
    emit status_changed();
    if (new_run && subject_ == views::Subject::live) emit subject_changed();
  }
  calm_down();
  bool news = false;
  const auto update = [&news](auto& held, auto next) {
    if (held == next) return;
    held = std::move(next);
    news = true;
  };
  update(inspect_status_, inspect_->status());
  update(generation_, inspect_->generation());
  update(live_trace_, training_->trace());
  update(inspect_trace_, inspect_->trace());
  report(inspect_status_->message, inspect_status_->message_is_error, last_inspect_message_);
  report(generation_->message, generation_->message_is_error, last_generation_message_);
  send_probes();
  if (news) emit trace_changed();
}

}  // namespace rat::app
