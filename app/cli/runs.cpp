// rat runs: what is in the run database.
#include "app/cli/runs.h"

#include "app/cli/commands.h"

namespace rat::cli {

void add_runs(CLI::App& command, Context& context) {
  add_runs_list(command, context);
  add_runs_show(command, context);
  add_runs_diff(command, context);
  add_runs_rename(command, context);
  add_runs_tag(command, context);
  add_runs_rm(command, context);
  add_runs_restore(command, context);
  add_runs_merge(command, context);
  add_runs_check(command, context);
  add_runs_backup(command, context);
  command.require_subcommand(1);
  command.footer(
      "RUN is an id, the start of one, or a name.\n"
      "\n"
      "Examples:\n"
      "  rat runs list --filter mqar\n"
      "  rat runs diff first second\n"
      "  rat runs rm old-1 old-2 && rat runs restore old-1\n"
      "  rat runs backup ~/runs-copy.db\n"
      "\n"
      "The database is plain SQLite with documented tables: sqlite3 runs.db works as well.");
}

}  // namespace rat::cli
