#include "app/cli/context.h"

#include <algorithm>
#include <numeric>

#include "app/cli/output.h"
#include "experiments/store/store.h"

namespace rat::cli {
namespace {

// Insertions, deletions, replacements and swaps of neighbours.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  std::iota(last.begin(), last.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last.back();
}

}  // namespace

std::filesystem::path Context::database_path() const {
  return database.empty() ? default_database_path() : std::filesystem::path(database);
}

void finish_command(CLI::App& command, Context& context, std::function<Result<int>()> action, bool has_json) {
  command.add_option("--db", context.database, "Run database (default: $XDG_DATA_HOME/rat-workbench/runs.db)")
      ->check(not_empty())
      ->type_name("FILE");
  if (has_json) command.add_flag("--json", context.json, "Print one JSON document to stdout");
  // CLI11 calls the innermost command first; the ones around it must not take over.
  command.callback([&context, action = std::move(action)] {
    if (!context.run) context.run = action;
  });
}

int wrong_usage(const Context& context, const std::string& sentence) {
  if (context.json) print_json({{"error", sentence}});
  print_error(sentence);
  return exit_usage;
}

CLI::Validator not_empty() {
  return CLI::Validator(
      [](const std::string& value) {
        return value.empty() ? std::string("an empty value; give one or leave the option out") : std::string();
      },
      "");
}

CLI::Validator at_least(int64_t low) {
  return CLI::Validator(
      [low](std::string& text) {
        int64_t value = 0;
        const bool ok = CLI::detail::lexical_cast(text, value) && value >= low;
        return ok ? std::string() : fmt::format("'{}' is not a whole number of at least {}.", text, low);
      },
      "");
}

CLI::Validator between(double low, double high) {
  return CLI::Validator(
      [low, high](std::string& text) {
        double value = 0;
        const bool ok = CLI::detail::lexical_cast(text, value) && value >= low && value <= high;
        return ok ? std::string() : fmt::format("'{}' is not a number from {} to {}.", text, low, high);
      },
      "");
}

std::string nearest(const std::string& word, const std::vector<std::string>& known) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : known) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) best = candidate, best_distance = distance;
  }
  return best;
}

}  // namespace rat::cli
