#include "app/cli/training.h"

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "app/cli/output.h"
#include "app/cli/progress.h"

namespace rat::cli {
namespace {

// `validation`: the newest validation loss, if there is one yet.
std::string step_details(const StepReport& report, const std::optional<double>& validation) {
  return fmt::format("loss {:.4f}{}  lr {:.2e}  {} tok/s{}", report.loss,
                     validation ? fmt::format("  val {:.4f}", *validation) : "", report.lr,
                     format_count(report.tokens_per_s), report.skipped ? "  (gradient not finite: step skipped)" : "");
}

}  // namespace

Result<TrainingOutcome> drive(Trainer& trainer, Interrupts& interrupts, const std::string& label) {
  using Clock = Progress::Clock;
  const auto start = Clock::now();
  const int64_t total = trainer.spec().train.steps;
  Progress progress(stderr, is_terminal(STDERR_FILENO), label, trainer.step(), total, start);
  const auto outcome = [&](bool stopped) {
    return TrainingOutcome{stopped, trainer.step(), std::chrono::duration<double>(Clock::now() - start).count()};
  };
  const auto stop_here = [&]() -> Result<TrainingOutcome> {
    progress.clear();
    RAT_TRY(trainer.stop_run());
    return outcome(true);
  };
  std::optional<double> validation;

  if (!trainer.notice().empty()) print_note("note: " + trainer.notice());
  interrupts.begin_work();
  while (!trainer.done()) {
    if (interrupts.requested()) return stop_here();
    const Result<StepReport> report = trainer.train_step(&interrupts.stop());
    if (!report && report.error().code == ErrorCode::cancelled) return stop_here();
    if (!report) return report.error();  // the trainer has recorded the run as failed
    if (report->evaluated) validation = report->val_loss;
    if (!report->warning.empty()) {
      progress.clear();
      print_note("warning: " + report->warning);
    }
    progress.update(report->step, step_details(*report, validation), Clock::now());
  }
  interrupts.stop_inside_steps();
  const Status finished = trainer.finish(&interrupts.stop());
  if (!finished && finished.error().code == ErrorCode::cancelled) return stop_here();
  if (!finished) {
    trainer.fail_run(finished.error().message);
    return finished.error();
  }
  return outcome(false);
}

void make_data_path_absolute(RunSpec& spec) {
  for (std::string* path : {&spec.data.path, &spec.data.tokenizer}) {
    if (path->empty() || *path == "-") continue;
    std::error_code error;
    const std::filesystem::path absolute = std::filesystem::absolute(*path, error);
    if (!error) *path = absolute.lexically_normal().string();
  }
}

Result<std::string> read_text_file(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error))
    return fail(ErrorCode::invalid_argument, "'{}' is a folder: name a file.", path);
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail(ErrorCode::not_found, "'{}' cannot be opened: check the path and its permissions.", path);
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (in.bad()) return fail(ErrorCode::io_failure, "'{}' could not be read to its end.", path);
  return text;
}

}  // namespace rat::cli
