// rat runs rename, tag, rm, restore: changing what is stored about runs.
#include <memory>

#include "app/cli/output.h"
#include "app/cli/run_lookup.h"
#include "app/cli/runs.h"
#include "experiments/store/store.h"

namespace rat::cli {
namespace {

// Changing a database that does not exist would create it, only to find no run in it.
Result<std::unique_ptr<StoreWriter>> open_existing(const Context& context) {
  RAT_ASSIGN(const StoreReader reader, StoreReader::open(context.database_path()));
  return StoreWriter::open(context.database_path());
}

int report(const Context& context, const char* verb, const std::vector<RunRow>& runs) {
  Json ids = Json::array();
  for (const RunRow& run : runs) {
    ids.push_back(run.id);
    if (!context.json) fmt::print("{} {}\n", verb, run.id);
  }
  if (context.json) print_json({{verb, ids}});
  return exit_done;
}

Result<int> rename(const std::string& wanted, const std::string& name, const Context& context) {
  RAT_ASSIGN(const auto store, open_existing(context));
  RAT_ASSIGN(const RunRow run, find_run(store->path(), wanted));
  RAT_TRY(store->rename_run(run.id, name));
  return report(context, "renamed", {run});
}

Result<int> tag(const std::string& wanted, const std::vector<std::string>& tags, const Context& context) {
  RAT_ASSIGN(const auto store, open_existing(context));
  RAT_ASSIGN(const RunRow run, find_run(store->path(), wanted));
  RAT_TRY(store->set_tags(run.id, tags));
  return report(context, "tagged", {run});
}

struct RemoveOptions {
  std::vector<std::string> runs;
  bool purge = false;
};

// Finds all of them before touching the first, so that a typing error deletes nothing.
Result<int> remove(const RemoveOptions& options, const Context& context) {
  RAT_ASSIGN(const auto store, open_existing(context));
  std::vector<RunRow> runs;
  for (const std::string& wanted : options.runs) {
    RAT_ASSIGN(RunRow run, find_run(store->path(), wanted));
    if (run.state == RunState::running)
      return fail(ErrorCode::invalid_argument, "Run {} is being trained: stop it first.", run.id);
    runs.push_back(std::move(run));
  }
  for (const RunRow& run : runs) {
    RAT_TRY(options.purge ? store->purge_run(run.id) : store->delete_run(run.id));
    if (options.purge && std::filesystem::exists(store->run_folder(run.id)))
      print_note(fmt::format("the checkpoints of {} stay: another database in this folder has that run too", run.id));
  }
  if (!options.purge) print_note("`rat runs restore RUN` brings it back");
  return report(context, options.purge ? "purged" : "deleted", runs);
}

Result<RunRow> find_deleted(const StoreReader& store, const std::string& wanted) {
  Result<RunRow> run = store.deleted_run(wanted);
  if (!run && run.error().code == ErrorCode::not_found)
    return fail(ErrorCode::not_found, "There is no deleted run '{}': `rat runs list --deleted` shows those there are.",
                wanted);
  return run;
}

Result<int> restore(const std::vector<std::string>& wanted, const Context& context) {
  RAT_ASSIGN(const auto store, open_existing(context));
  RAT_ASSIGN(const StoreReader reader, StoreReader::open(store->path()));
  std::vector<RunRow> runs;
  for (const std::string& one : wanted) {
    RAT_ASSIGN(RunRow run, find_deleted(reader, one));
    runs.push_back(std::move(run));
  }
  for (const RunRow& run : runs) RAT_TRY(store->undelete_run(run.id));
  return report(context, "restored", runs);
}

}  // namespace

void add_runs_rename(CLI::App& runs, Context& context) {
  const auto names = std::make_shared<std::pair<std::string, std::string>>();
  CLI::App& command = *runs.add_subcommand("rename", "Give a run another name");
  command.add_option("RUN", names->first, "Id (or the start of it) or name")->required()->type_name("");
  command.add_option("NAME", names->second, "The new name")->required()->type_name("");
  command.footer("Example:\n  rat runs rename first baseline");
  finish_command(command, context, [names, &context] { return rename(names->first, names->second, context); });
}

void add_runs_tag(CLI::App& runs, Context& context) {
  const auto run = std::make_shared<std::string>();
  const auto tags = std::make_shared<std::vector<std::string>>();
  CLI::App& command = *runs.add_subcommand("tag", "Set the tags of a run (none: remove them)");
  command.add_option("RUN", *run, "Id (or the start of it) or name")->required()->type_name("");
  command.add_option("TAGS", *tags, "Its tags from now on")->type_name("");
  command.footer("Examples:\n  rat runs tag first paper baseline\n  rat runs tag first");
  finish_command(command, context, [run, tags, &context] { return tag(*run, *tags, context); });
}

void add_runs_rm(CLI::App& runs, Context& context) {
  const auto options = std::make_shared<RemoveOptions>();
  CLI::App& command = *runs.add_subcommand("rm", "Delete runs; `restore` brings them back");
  command.add_option("RUNS", options->runs, "Ids (or the start of them) or names")->required()->type_name("");
  command.add_flag("--purge", options->purge, "For good, with their checkpoints");
  command.footer("Examples:\n  rat runs rm old-1 old-2\n  rat runs rm --purge old-3");
  finish_command(command, context, [options, &context] { return remove(*options, context); });
}

void add_runs_restore(CLI::App& runs, Context& context) {
  const auto wanted = std::make_shared<std::vector<std::string>>();
  CLI::App& command = *runs.add_subcommand("restore", "Bring deleted runs back");
  command.add_option("RUNS", *wanted, "Ids (or the start of them) or names")->required()->type_name("");
  command.footer("Example:\n  rat runs restore old-1");
  finish_command(command, context, [wanted, &context] { return restore(*wanted, context); });
}

}  // namespace rat::cli
