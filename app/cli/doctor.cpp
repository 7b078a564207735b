// rat doctor: what this machine can do, what is missing, and what that costs.
#include "app/cli/commands.h"
#include "app/cli/machine.h"
#include "app/cli/output.h"

namespace rat::cli {
namespace {

Result<int> doctor(const Context& context) {
  const std::vector<Finding> findings = examine_machine(context);
  Json checks = Json::array();
  int warnings = 0;
  for (const Finding& finding : findings) {
    warnings += finding.ok ? 0 : 1;
    checks.push_back(
        {{"subject", finding.subject}, {"ok", finding.ok}, {"finding", finding.what}, {"advice", finding.advice}});
    if (context.json) continue;
    fmt::print("{:<4} {:<15} {}\n", finding.ok ? "ok" : "warn", finding.subject, finding.what);
    if (!finding.advice.empty()) fmt::print("{:<20} {}\n", "", finding.advice);
  }
  if (context.json) print_json({{"warnings", warnings}, {"checks", checks}});
  return exit_done;
}

}  // namespace

void add_doctor(CLI::App& command, Context& context) {
  command.footer(
      "Every line is `ok` or `warn`; a warning says what it costs and what to do. Exit code 0 either way.\n"
      "\n"
      "Examples:\n"
      "  rat doctor\n"
      "  rat doctor --json --db ~/runs.db");
  finish_command(command, context, [&context] { return doctor(context); });
}

}  // namespace rat::cli
