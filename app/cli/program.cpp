#include "app/cli/program.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <memory>
#include <new>
#include <system_error>

#include "app/cli/commands.h"
#include "app/cli/output.h"
#include "build_info.h"

namespace rat::cli {
namespace {

// Options as `--name TYPE   what it does (default: x)`: without the parser's own notes on excludes and counts.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override {
    std::string type = option->get_type_name();
    if (type.starts_with(":")) type.erase(0, 1);  // the choices alone: {cpu,cuda}
    return type.empty() ? "" : " " + type;
  }
  std::string make_option_desc(const CLI::Option* option) const override {
    std::string text = option->get_description();
    if (!option->get_default_str().empty()) text += fmt::format(" (default: {})", option->get_default_str());
    if (option->get_required() && !option->get_positional()) text += " (required)";
    return text;
  }
};

std::string version_text() {
  return fmt::format("rat {} (commit {}{}, {}{}{}, {})", build_info::version, build_info::commit,
                     build_info::dirty ? " with local changes" : "", build_info::build_type,
                     *build_info::sanitizers ? ", sanitizers " : "", build_info::sanitizers, build_info::compiler);
}

constexpr const char* overview_footer =
    "Start here:\n"
    "  rat train --steps 200 --name first        train on the program's own source text\n"
    "  rat train --data ~/notes --name notes     train on a file or a folder of your own\n"
    "  rat runs list                             what was trained, and how well\n"
    "  rat generate first --prompt \"for (\"       let a run write\n"
    "  rat doctor                                what this machine can do\n"
    "\n"
    "Results go to stdout, progress to stderr. Exit code: 0 done, 1 failed, 2 wrong usage.\n"
    "`rat COMMAND --help` explains a command.";

void declare(CLI::App& app, Context& context) {
  app.name("rat");
  app.description("RAT Workbench on the command line: train, measure and look into chunked sequence models.");
  app.set_version_flag("--version", version_text());
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.formatter(std::make_shared<HelpFormatter>());
  app.get_formatter()->column_width(30);
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.add_option("--db", context.database, "Run database (default: $XDG_DATA_HOME/rat-workbench/runs.db)")
      ->type_name("FILE");
  app.footer(overview_footer);
  app.require_subcommand(0, 1);
  for (const Command& command : commands()) {
    CLI::App* sub = app.add_subcommand(std::string(command.name), std::string(command.summary));
    sub->group("Commands");
    command.add(*sub, context);
  }
}

// The command whose options were being read when parsing failed: "rat runs list".
const CLI::App* deepest(const CLI::App* app) {
  while (!app->get_subcommands().empty()) app = app->get_subcommands().front();
  return app;
}

std::string full_name(const CLI::App* app) {
  return app->get_parent() ? full_name(app->get_parent()) + " " + app->get_name() : app->get_name();
}

std::vector<std::string> known_words(const CLI::App& app, bool options) {
  std::vector<std::string> words;
  if (options) {
    for (const CLI::Option* option : app.get_options())
      for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
  } else {
    for (const CLI::App* sub : app.get_subcommands(nullptr)) words.push_back(sub->get_name());
  }
  return words;
}

// One sentence: what was not understood, and the nearest thing that would have been.
std::string explain(const CLI::App& root, const CLI::ParseError& error) {
  const CLI::App* command = deepest(&root);
  const std::vector<std::string> rest = root.remaining(true);
  // A word that no command takes also leaves the command it was meant to be missing.
  const bool misunderstood =
      dynamic_cast<const CLI::ExtrasError*>(&error) || dynamic_cast<const CLI::RequiredError*>(&error);
  if (misunderstood && !rest.empty()) {
    const bool is_option = rest.front().starts_with("-");
    const std::string word = rest.front().substr(0, rest.front().find('='));
    const std::vector<std::string> known = known_words(*command, is_option);
    const std::string near = nearest(word, known);
    if (!near.empty()) return fmt::format("{} does not know '{}': did you mean '{}'?", full_name(command), word, near);
    if (!is_option && !known.empty())
      return fmt::format("{} does not know '{}': it takes one of {}.", full_name(command), word,
                         fmt::join(known, ", "));
    return fmt::format("{} does not take '{}'.", full_name(command), word);
  }
  if (const std::vector<std::string> known = known_words(*command, false);
      dynamic_cast<const CLI::RequiredError*>(&error) && !known.empty())
    return fmt::format("{} takes one of {}.", full_name(command), fmt::join(known, ", "));
  return fmt::format("{}: {}", full_name(command), error.what());
}

int failed(const Context& context, const std::string& sentence, int code) {
  if (context.json) print_json({{"error", sentence}});
  print_error(sentence);
  return code;
}

int unwritten(const std::string& reason) {
  print_error(fmt::format("Standard output could not be written: {}.", reason));
  return exit_failed;
}

int execute(const Context& context) {
  try {
    const Result<int> result = context.run();
    if (!result) return failed(context, result.error().message, exit_failed);
    return *result;
  } catch (const std::bad_alloc& problem) {
    const std::string_view numbers = problem.what();  // of a backend; the library's own says only its name
    if (numbers != std::bad_alloc().what()) return failed(context, fmt::format("Out of memory: {}.", numbers), exit_failed);
    return failed(context, "Out of memory: use a smaller model, batch or sequence length.", exit_failed);
  } catch (const std::system_error& error) {
    if (!std::ferror(stdout))
      return failed(context, fmt::format("An internal operation failed: {}.", error.what()), exit_failed);
    std::clearerr(stdout);  // said here
    return unwritten(error.code().message());
  } catch (const std::exception& error) {
    return failed(context, fmt::format("An internal operation failed: {}.", error.what()), exit_failed);
  }
}

// What a full disk keeps of the output is noticed here at the latest.
int after_output(int code) {
  std::cout.flush();
  if (std::fflush(stdout) == 0 && !std::ferror(stdout) && std::cout) return code;
  return unwritten(std::strerror(errno));
}

}  // namespace

int run_program(int argc, char** argv) {
  Context context;
  context.program = argc > 0 ? argv[0] : "rat";
  CLI::App app;
  declare(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    return after_output(app.exit(request));
  } catch (const CLI::ParseError& error) {
    // Asked for before the options were understood, so looked up in the words themselves.
    context.json = std::any_of(argv, argv + argc, [](const char* word) { return std::string_view(word) == "--json"; });
    const int code = failed(context, explain(app, error), exit_usage);
    fmt::print(stderr, "Try `{} --help`.\n", full_name(deepest(&app)));
    return code;
  }
  if (!context.run) {
    fmt::print("{}", app.help());
    return after_output(exit_done);
  }
  return after_output(execute(context));
}

}  // namespace rat::cli
