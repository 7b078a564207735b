// rat runs list, show, diff: reading what is stored.
#include <algorithm>
#include <cctype>
#include <memory>
#include <set>

#include "app/cli/eval_report.h"
#include "app/cli/output.h"
#include "app/cli/run_lookup.h"
#include "app/cli/runs.h"
#include "experiments/run_spec.h"
#include "experiments/store/store.h"

namespace rat::cli {
namespace {

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// Every word of the filter must occur in what the table shows of a run, or in its data description.
bool matches(const RunRow& run, const std::string& filter) {
  const std::string text = lower(fmt::format("{} {} {} {} {} {} {}", run.id, run.name, run_state_name(run.state),
                                             run.layers, fmt::join(run.tags, " "), run.data_description, run.device));
  std::string words = lower(filter);
  for (std::size_t begin = 0; begin < words.size();) {
    const std::size_t end = std::min(words.find(' ', begin), words.size());
    if (text.find(words.substr(begin, end - begin)) == std::string::npos) return false;
    begin = end + 1;
  }
  return true;
}

std::string metric_cell(const RunRow& run, const std::string& metric, std::string (*format)(double)) {
  const auto value = last_metric(run, metric);
  return value ? format(*value) : "-";
}

struct ListOptions {
  std::string filter;
  bool deleted = false;
};

Result<std::vector<RunRow>> deleted_runs(const StoreReader& store) {
  RAT_ASSIGN(std::vector<RunRow> all, store.runs(true));
  RAT_ASSIGN(const std::vector<RunRow> visible, store.runs());
  std::set<std::string> ids;
  for (const RunRow& run : visible) ids.insert(run.id);
  std::erase_if(all, [&](const RunRow& run) { return ids.contains(run.id); });
  return all;
}

Result<int> list(const ListOptions& options, const Context& context) {
  RAT_ASSIGN(const StoreReader store, StoreReader::open(context.database_path()));
  RAT_ASSIGN(std::vector<RunRow> runs, options.deleted ? deleted_runs(store) : store.runs());
  const std::size_t total = runs.size();
  std::erase_if(runs, [&](const RunRow& run) { return !matches(run, options.filter); });
  if (context.json) {
    Json rows = Json::array();
    for (const RunRow& run : runs) rows.push_back(run_summary(run));
    print_json(rows);
    return exit_done;
  }
  using enum Table::Align;
  Table table({{"run"},
               {"name"},
               {"state"},
               {"layers"},
               {"steps", right},
               {"loss", right},
               {"val loss", right},
               {"last tok/s", right},
               {"created"},
               {"tags"}});
  for (const RunRow& run : runs)
    table.add({run.id, run.name, std::string(run_state_name(run.state)), run.layers,
               fmt::format("{}/{}", run.steps_done, run.steps_total), metric_cell(run, "loss", format_value),
               metric_cell(run, "val_loss", format_value), metric_cell(run, "tokens_per_s", format_count),
               format_time(run.created_at), fmt::format("{}", fmt::join(run.tags, ", "))});
  if (!runs.empty()) fmt::print("{}", table.text());
  if (total == 0)
    print_note(options.deleted ? "no deleted runs" : "no runs yet: rat train makes one");
  else if (runs.empty())
    print_note(fmt::format("none of {} runs matches '{}'", total, options.filter));
  return exit_done;
}

// Name and value of everything a run row records beside spec and metrics.
std::vector<std::pair<std::string, std::string>> facts(const RunRow& run) {
  return {{"id", run.id},
          {"name", run.name},
          {"state", std::string(run_state_name(run.state))},
          {"error", run.error},
          {"layers", run.layers},
          {"steps", fmt::format("{} of {}", run.steps_done, run.steps_total)},
          {"tags", fmt::format("{}", fmt::join(run.tags, ", "))},
          {"sweep", run.sweep_id},
          {"data", run.data_description},
          {"data hash", run.data_hash},
          {"spec hash", run.spec_hash},
          {"seed", std::to_string(run.seed)},
          {"device", fmt::format("{} {}", run.device, run.dtype)},
          {"commit", run.commit + (run.dirty ? " with local changes" : "")},
          {"build", run.build},
          {"host", run.host},
          {"cpu", run.cpu},
          {"gpu", run.gpu},
          {"created", format_time(run.created_at)},
          {"started", format_time(run.started_at)},
          {"ended", format_time(run.ended_at)},
          {"checkpoint", run.checkpoint}};
}

Result<int> show(const std::string& wanted, const Context& context) {
  RAT_ASSIGN(const StoreReader store, StoreReader::open(context.database_path()));
  RAT_ASSIGN(const RunRow run, find_run(store, wanted));
  RAT_ASSIGN(const std::vector<Evaluation> evaluations, store.evaluations(run.id));
  const Result<RunSpec> parsed = parse_spec(run.spec_json);
  const int64_t seq_len = parsed ? parsed->train.seq_len : 0;
  const Json spec = Json::parse(run.spec_json, nullptr, false);
  if (context.json) {
    Json document = run_summary(run);
    for (const auto& [name, value] : facts(run))
      if (!document.contains(name) && name != "steps") document[name] = value;
    document["evaluations"] = Json::array();
    for (const Evaluation& one : evaluations) document["evaluations"].push_back(evaluation_document(one, seq_len));
    document["spec"] = spec.is_discarded() ? Json(run.spec_json) : spec;
    print_json(document);
    return exit_done;
  }
  for (const auto& [name, value] : facts(run))
    if (!value.empty()) fmt::print("{:<11} {}\n", name, value);
  using enum Table::Align;
  Table metrics({{"metric"}, {"last", right}, {"best", right}, {"at step", right}, {"points", right}});
  for (const auto& [name, metric] : run.metrics)
    metrics.add({name, format_value(metric.last), format_value(metric.best), std::to_string(metric.last_step),
                 std::to_string(metric.count)});
  if (!metrics.empty()) fmt::print("\n{}", metrics.text());
  Table measured({{"evaluation"}, {"step", Table::Align::right}, {"result"}, {"measured"}});
  for (const Evaluation& one : evaluations)
    measured.add({one.task, std::to_string(one.step), evaluation_headline(one, seq_len), format_time(one.created_at)});
  if (!measured.empty()) fmt::print("\n{}", measured.text());
  fmt::print("\nspec {}\n",
             spec.is_discarded() ? run.spec_json : spec.dump(2, ' ', false, Json::error_handler_t::replace));
  return exit_done;
}

struct Difference {
  std::string what;
  std::vector<std::string> values;
};

// Spec keys, then recorded facts, then metrics; what is always different (id, times, files) is left out.
std::vector<Difference> differences(const RunRow& a, const RunRow& b) {
  std::vector<Difference> rows;
  for (const SpecDifference& one : diff_specs({a.spec_json, b.spec_json})) rows.push_back({one.key, one.values});
  static const std::set<std::string> skipped{"id",        "name",    "layers",  "seed",  "device",
                                             "spec hash", "created", "started", "ended", "checkpoint"};
  const auto facts_a = facts(a), facts_b = facts(b);
  for (std::size_t i = 0; i < facts_a.size(); ++i)
    if (!skipped.contains(facts_a[i].first) && facts_a[i].second != facts_b[i].second)
      rows.push_back({facts_a[i].first, {facts_a[i].second, facts_b[i].second}});
  std::set<std::string> names;
  for (const RunRow* run : {&a, &b})
    for (const auto& [name, metric] : run->metrics) names.insert(name);
  for (const std::string& name : names) {
    const std::string left = metric_cell(a, name, format_value), right = metric_cell(b, name, format_value);
    if (left != right) rows.push_back({"last " + name, {left, right}});
  }
  return rows;
}

Result<int> diff(const std::string& first, const std::string& second, const Context& context) {
  RAT_ASSIGN(const StoreReader store, StoreReader::open(context.database_path()));
  RAT_ASSIGN(const RunRow a, find_run(store, first));
  RAT_ASSIGN(const RunRow b, find_run(store, second));
  const std::vector<Difference> rows = differences(a, b);
  if (context.json) {
    Json list = Json::array();
    for (const Difference& row : rows) list.push_back({{"what", row.what}, {"values", row.values}});
    print_json({{"runs", {a.id, b.id}}, {"differences", list}});
    return exit_done;
  }
  Table table({{""}, {a.id + " " + a.name}, {b.id + " " + b.name}});
  for (const Difference& row : rows) table.add({row.what, row.values[0], row.values[1]});
  if (rows.empty())
    print_note(fmt::format("{} and {} do not differ in spec, origin or metrics", a.id, b.id));
  else
    fmt::print("{}", table.text());
  return exit_done;
}

}  // namespace

void add_runs_list(CLI::App& runs, Context& context) {
  const auto options = std::make_shared<ListOptions>();
  CLI::App& command = *runs.add_subcommand("list", "All runs, newest first");
  command.add_option("--filter", options->filter, "Only runs that contain all these words")->type_name("TEXT");
  command.add_flag("--deleted", options->deleted, "Deleted runs instead: those that `rat runs restore` brings back");
  command.footer("Examples:\n  rat runs list\n  rat runs list --filter \"finished rat:16\" --json");
  finish_command(command, context, [options, &context] { return list(*options, context); });
}

void add_runs_show(CLI::App& runs, Context& context) {
  const auto run = std::make_shared<std::string>();
  CLI::App& command = *runs.add_subcommand("show", "Everything recorded about one run");
  command.add_option("RUN", *run, "Id (or the start of it) or name")->required()->type_name("");
  command.footer("Example:\n  rat runs show first");
  finish_command(command, context, [run, &context] { return show(*run, context); });
}

void add_runs_diff(CLI::App& runs, Context& context) {
  const auto names = std::make_shared<std::pair<std::string, std::string>>();
  CLI::App& command = *runs.add_subcommand("diff", "Compare two runs: only what differs");
  command.add_option("A", names->first, "A run")->required()->type_name("");
  command.add_option("B", names->second, "Another run")->required()->type_name("");
  command.footer("Example:\n  rat runs diff first second");
  finish_command(command, context, [names, &context] { return diff(names->first, names->second, context); });
}

}  // namespace rat::cli
