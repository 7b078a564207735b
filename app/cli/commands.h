// THE list of commands, in the order in which the overview shows them. A command is one file plus one line here.
#pragma once

#include <span>
#include <string_view>

#include "app/cli/context.h"

namespace rat::cli {

struct Command {
  std::string_view name;
  std::string_view summary;                          // one line for the overview
  void (*add)(CLI::App& command, Context& context);  // declares options and examples
};

std::span<const Command> commands();

void add_train(CLI::App& command, Context& context);
void add_sweep(CLI::App& command, Context& context);
void add_eval(CLI::App& command, Context& context);
void add_generate(CLI::App& command, Context& context);
void add_inspect(CLI::App& command, Context& context);
void add_import(CLI::App& command, Context& context);
void add_export(CLI::App& command, Context& context);
void add_runs(CLI::App& command, Context& context);
void add_presets(CLI::App& command, Context& context);
void add_figure(CLI::App& command, Context& context);
void add_bench(CLI::App& command, Context& context);
void add_verify(CLI::App& command, Context& context);
void add_doctor(CLI::App& command, Context& context);

}  // namespace rat::cli
