// Saving and loading a Trainer's state. Training goes on when a checkpoint cannot be written: it is tried again.
#include <algorithm>
#include <charconv>

#include "experiments/trainer_impl.h"

namespace rat {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t checkpoints_kept = 3;
constexpr double retry_after_s = 10;

int64_t step_of(const fs::path& weights) {
  const std::string name = weights.filename().string();  // step-00000500.safetensors
  int64_t step = -1;
  if (name.starts_with("step-")) std::from_chars(name.data() + 5, name.data() + name.size(), step);
  return step;
}

// Twice the size: the new files are complete before an old one goes.
Status check_free_space(const fs::path& folder, int64_t parameters) {
  std::error_code error;
  fs::create_directories(folder, error);
  const fs::space_info space = fs::space(folder, error);
  const int64_t need = 2 * 3 * parameters * int64_t{sizeof(float)} + (1 << 20);  // weights and two moments
  if (error || space.available >= static_cast<uintmax_t>(need)) return ok();     // unknown space: let writing decide
  return fail(ErrorCode::io_failure, "The disk of {} has {} MiB left, a checkpoint needs {} MiB; free some space.",
              folder.string(), space.available >> 20, need >> 20);
}

double number_or(const std::map<std::string, std::string>& extra, const std::string& key, double otherwise) {
  const auto found = extra.find(key);
  double value = otherwise;
  if (found != extra.end()) std::from_chars(found->second.data(), found->second.data() + found->second.size(), value);
  return value;
}

}  // namespace

Status Trainer::Impl::save(bool final) {
  if (saved_step == step) return ok();
  const fs::path folder = store.run_folder(run_id);
  RAT_TRY(check_free_space(folder, model->parameter_count()));
  CheckpointMeta meta{step, run_id, to_json(spec), {}};
  meta.extra["wall_s"] = fmt::format("{}", wall_s());
  meta.extra["skipped_in_a_row"] = std::to_string(skipped_in_a_row);
  meta.extra["data_hash"] = data->hash();
  RAT_ASSIGN(const fs::path weights, save_checkpoint(folder, *model, *optimizer, meta));
  RAT_TRY(store.record_checkpoint(run_id, step, weights));
  saved_step = step;
  if (!final) remove_old_checkpoints();
  return ok();
}

void Trainer::Impl::save_if_due(StepReport& report) {
  const bool regular =
      spec.train.checkpoint_every > 0 && step % spec.train.checkpoint_every == 0 && step < spec.train.steps;
  const bool again = checkpoint_retry_at_s >= 0 && since_start.ms() / 1000 >= checkpoint_retry_at_s;
  if (regular || again) {
    const Status saved = save(false);
    checkpoint_problem = saved ? "" : saved.error().message;
    checkpoint_retry_at_s = saved ? -1 : since_start.ms() / 1000 + retry_after_s;
  }
  report.warning = checkpoint_problem;
}

// First the row, then the weights file (which marks a checkpoint as complete), then its optimizer file: a kill between
// them leaves nothing that looks usable and is not.
void Trainer::Impl::remove_old_checkpoints() {
  const std::vector<fs::path> all = list_checkpoints(store.run_folder(run_id));
  for (std::size_t i = 0; i + checkpoints_kept < all.size(); ++i) {
    if (!store.forget_checkpoint(run_id, step_of(all[i]))) return;  // tried again after the next checkpoint
    fs::path moments = all[i];
    moments.replace_extension(".optimizer.safetensors");
    std::error_code ignored;
    fs::remove(all[i], ignored);
    fs::remove(moments, ignored);
  }
}

// The newest that can be read; a damaged one is reported in `notice` and the one before it is used.
Status Trainer::Impl::load_newest(const RunRow& run) {
  std::vector<fs::path> candidates = list_checkpoints(store.run_folder(run.id));
  std::ranges::reverse(candidates);
  if (std::ranges::find(candidates, fs::path(run.checkpoint)) == candidates.end())
    candidates.insert(candidates.begin(), run.checkpoint);
  std::string first_problem;
  for (const fs::path& weights : candidates) {
    auto meta = load_checkpoint(weights, *model, *optimizer);
    if (meta && meta->run_id != run.id)
      meta = fail(ErrorCode::corrupt_data, "{} belongs to run {}, not to {}.", weights.string(), meta->run_id, run.id);
    if (!meta) {
      if (first_problem.empty()) first_problem = meta.error().message;
      continue;
    }
    step = saved_step = meta->step;
    wall_before_s = number_or(meta->extra, "wall_s", 0);
    skipped_in_a_row = static_cast<int64_t>(number_or(meta->extra, "skipped_in_a_row", 0));
    if (!first_problem.empty())
      notice = fmt::format("Continued from step {} because a newer checkpoint is damaged: {}", step, first_problem);
    return ok();
  }
  return fail(ErrorCode::corrupt_data, "No checkpoint of run {} can be read; the newest: {}", run.id, first_problem);
}

}  // namespace rat
