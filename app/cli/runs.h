// The parts of `rat runs`: one function for each of its commands. Deleting is undone by `restore` until `--purge`.
#pragma once

#include "app/cli/context.h"

namespace rat::cli {

// runs_show.cpp
void add_runs_list(CLI::App& runs, Context& context);
void add_runs_show(CLI::App& runs, Context& context);
void add_runs_diff(CLI::App& runs, Context& context);
// runs_change.cpp
void add_runs_rename(CLI::App& runs, Context& context);
void add_runs_tag(CLI::App& runs, Context& context);
void add_runs_rm(CLI::App& runs, Context& context);
void add_runs_restore(CLI::App& runs, Context& context);
// runs_file.cpp
void add_runs_merge(CLI::App& runs, Context& context);
void add_runs_check(CLI::App& runs, Context& context);
void add_runs_backup(CLI::App& runs, Context& context);

}  // namespace rat::cli
