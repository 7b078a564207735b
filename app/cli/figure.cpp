// rat figure: a figure from its recipe, or from a few options that make one.
#include <memory>

#include "app/cli/commands.h"
#include "app/cli/figure_files.h"
#include "app/cli/output.h"
#include "app/cli/run_lookup.h"
#include "app/cli/training.h"
#include "views/plots/exporters.h"
#include "views/plots/venues.h"

namespace rat::cli {
namespace {

struct FigureOptions {
  std::string recipe_file, out;
  std::vector<std::string> formats, runs, bench_files;
  std::string scale_x = "linear", scale_y = "linear";
  bool hide_raw = false;
  Recipe recipe;

  FigureRequest request() const {
    const std::filesystem::path beside = std::filesystem::path(recipe_file).replace_extension("pdf");
    return {out.empty() ? beside : std::filesystem::path(out), formats, recipe_file};
  }
};

using Options = std::shared_ptr<FigureOptions>;

Result<int> from_recipe(const FigureOptions& options, const Context& context) {
  if (options.recipe_file.empty())
    return wrong_usage(context,
                       "rat figure takes a recipe file, or one of curves, tradeoff, throughput, evaluation, scaling. "
                       "Try `rat figure --help`.");
  const Result<std::vector<std::string>> formats = formats_of(options.request());
  if (!formats) return wrong_usage(context, formats.error().message);
  RAT_ASSIGN(const std::string text, read_text_file(options.recipe_file));
  RAT_ASSIGN(const Recipe recipe, parse_recipe(text));
  const auto folder = std::filesystem::absolute(options.recipe_file).parent_path();
  return write_figure(recipe, folder, options.request(), context);
}

Scale scale_named(const std::string& name) {
  if (name == "log") return Scale::log10;
  if (name == "log2") return Scale::log2;
  return name == "symlog" ? Scale::symlog : Scale::linear;
}

// Through the same door as a recipe from a file, so that the same rules are checked.
Result<int> write_checked(const FigureOptions& options, const Context& context) {
  RAT_ASSIGN(const Recipe checked, parse_recipe(to_json(options.recipe)));
  return write_figure(checked, {}, options.request(), context);
}

// The recipe that the options describe, run names replaced by ids so that it keeps meaning the same runs.
Result<int> from_options(FigureOptions options, FigureKind kind, const Context& context) {
  const Result<std::vector<std::string>> formats = formats_of(options.request());
  if (!formats) return wrong_usage(context, formats.error().message);
  Recipe& recipe = options.recipe;
  recipe.kind = kind;
  recipe.x.scale = scale_named(options.scale_x);
  recipe.y.scale = scale_named(options.scale_y);
  recipe.show_raw = !options.hide_raw;
  RAT_ASSIGN(const StoreReader store, StoreReader::open(context.database_path()));
  for (const std::string& wanted : options.runs) {
    RAT_ASSIGN(const RunRow run, find_run(store, wanted));
    recipe.runs.push_back(run.id);
  }
  return write_checked(options, context);
}

// The measurements become part of the recipe, which so needs no other file.
Result<int> from_bench(FigureOptions options, const Context& context) {
  const Result<std::vector<std::string>> formats = formats_of(options.request());
  if (!formats) return wrong_usage(context, formats.error().message);
  options.recipe.kind = FigureKind::scaling;
  for (const std::string& file : options.bench_files) {
    RAT_ASSIGN(const std::string text, read_text_file(file));
    RAT_ASSIGN(const std::vector<BenchRow> rows, parse_bench_rows(text, "'" + file + "'"));
    options.recipe.bench.insert(options.recipe.bench.end(), rows.begin(), rows.end());
  }
  return write_checked(options, context);
}

void add_output(CLI::App& command, const Options& options, bool out_required) {
  CLI::Option* out =
      command.add_option("--out", options->out, "File to write; its ending is the format")->type_name("FILE");
  if (out_required) out->required();
  command.add_option("--format", options->formats, "Several formats at once: pdf,svg,png,csv,tikz")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("LIST");
}

void add_paper(CLI::App& command, const Options& options) {
  std::vector<std::string> ids;
  for (const Venue& venue : venues()) ids.emplace_back(venue.id);
  Recipe& recipe = options->recipe;
  command.add_option("--venue", recipe.venue, "Column width and text size of")
      ->check(CLI::IsMember(ids))
      ->capture_default_str()
      ->type_name("");
  command.add_flag("--full-width", recipe.full_width, "Across both columns");
  command.add_option("--width", recipe.width_in, "Inches, instead of the venue's")
      ->check(between(0.5, 40.0))
      ->type_name("IN");
  command.add_option("--height", recipe.height_in, "Inches (default: 0.618 of the width)")
      ->check(between(0.5, 40.0))
      ->type_name("IN");
  command.add_option("--legend", recipe.legend, "Where")
      ->check(CLI::IsMember({"inside", "below", "none"}))
      ->capture_default_str()
      ->type_name("");
}

void add_scales(CLI::App& command, const Options& options) {
  for (const auto& [name, target] :
       {std::pair{"--x-scale", &options->scale_x}, std::pair{"--y-scale", &options->scale_y}})
    command.add_option(name, *target, "Axis scale")
        ->check(CLI::IsMember({"linear", "log", "log2", "symlog"}))
        ->capture_default_str()
        ->type_name("");
}

CLI::App& add_kind(CLI::App& figure, const Options& options, const char* name, const char* summary) {
  CLI::App& command = *figure.add_subcommand(name, summary);
  command.add_option("--runs", options->runs, "Ids or names, separated by commas")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->required()
      ->type_name("RUN,RUN");
  add_output(command, options, true);
  return command;
}

void finish_kind(CLI::App& command, const Options& options, FigureKind kind, Context& context) {
  add_paper(command, options);
  finish_command(command, context, [options, kind, &context] { return from_options(*options, kind, context); });
}

void add_curves(CLI::App& figure, Context& context) {
  const auto options = std::make_shared<FigureOptions>();
  CLI::App& command = add_kind(figure, options, "curves", "A metric over steps, tokens or time");
  Recipe& recipe = options->recipe;
  command.add_option("--metric", recipe.metric, "loss, val_loss, grad_norm, tokens_per_s, ...")
      ->capture_default_str()
      ->type_name("NAME");
  command.add_option("--smoothing", recipe.smoothing, "EMA weight, 0 to 0.999; the raw curve stays, faint")
      ->check(between(0.0, 0.999))
      ->capture_default_str()
      ->type_name("S");
  command.add_flag("--hide-raw", options->hide_raw, "Without the faint raw curve");
  command.add_flag("--collapse-seeds", recipe.collapse_seeds, "Runs that differ only in seed: mean and interval");
  command.add_option("--x-axis", recipe.x_axis, "What the curve is drawn over")
      ->check(CLI::IsMember({"step", "tokens", "wall"}))
      ->capture_default_str()
      ->type_name("");
  add_scales(command, options);
  command.footer("Example:\n  rat figure curves --runs first,second --metric loss --smoothing 0.9 --out loss.pdf");
  finish_kind(command, options, FigureKind::curves, context);
}

void add_tradeoff(CLI::App& figure, Context& context) {
  const auto options = std::make_shared<FigureOptions>();
  CLI::App& command = add_kind(figure, options, "tradeoff", "One metric against another, a point a run, Pareto front");
  Recipe& recipe = options->recipe;
  command.add_option("--x", recipe.x_metric, "Metric across")->capture_default_str()->type_name("NAME");
  command.add_option("--y", recipe.y_metric, "Metric up")->capture_default_str()->type_name("NAME");
  command.add_option("--size", recipe.size_metric, "Metric of the marker area")
      ->capture_default_str()
      ->type_name("NAME");
  add_scales(command, options);
  command.footer("Example:\n  rat figure tradeoff --runs rat-4,rat-16,rnn --y val_accuracy --out tradeoff.pdf");
  finish_kind(command, options, FigureKind::tradeoff, context);
}

void add_throughput(CLI::App& figure, Context& context) {
  const auto options = std::make_shared<FigureOptions>();
  CLI::App& command = add_kind(figure, options, "throughput", "Speeds and time per operation");
  command.footer("Example:\n  rat figure throughput --runs first --out speed.pdf");
  finish_kind(command, options, FigureKind::throughput, context);
}

void add_evaluation(CLI::App& figure, Context& context) {
  const auto options = std::make_shared<FigureOptions>();
  CLI::App& command = add_kind(figure, options, "evaluation", "What `rat eval` measured: by length, position or depth");
  Recipe& recipe = options->recipe;
  command.add_option("--task", recipe.task, "Which task")
      ->check(CLI::IsMember({"length", "loss_by_position", "needle"}))
      ->capture_default_str()
      ->type_name("");
  command.add_option("--metric", recipe.metric, "length: loss, loss_beyond or accuracy")
      ->check(CLI::IsMember({"loss", "loss_beyond", "accuracy"}))
      ->capture_default_str()
      ->type_name("");
  add_scales(command, options);
  command.footer(
      "Examples:\n  rat figure evaluation --runs first,second --task length --out length.pdf\n"
      "  rat figure evaluation --runs first --task needle --out needle.pdf");
  finish_kind(command, options, FigureKind::evaluation, context);
}

void add_scaling(CLI::App& figure, Context& context) {
  const auto options = std::make_shared<FigureOptions>();
  CLI::App& command = *figure.add_subcommand("scaling", "Time or memory against sequence length, from `rat bench`");
  Recipe& recipe = options->recipe;
  recipe.metric = "time";
  recipe.legend = "below";  // a line for every mixer leaves no corner free
  command.add_option("FILES", options->bench_files, "What `rat bench --json` printed; a line for each --layers")
      ->required()
      ->type_name("");
  add_output(command, options, true);
  command.add_option("--phase", recipe.phase, "Of which measurement")
      ->check(CLI::IsMember({"train", "prefill", "decode"}))
      ->capture_default_str()
      ->type_name("");
  command.add_option("--metric", recipe.metric, "Median with quartiles, or highest resident memory")
      ->check(CLI::IsMember({"time", "memory"}))
      ->capture_default_str()
      ->type_name("");
  add_paper(command, options);
  command.footer(
      "Both axes are logarithmic. Measurements that differ in dtype, device, size or batch are refused.\n"
      "\n"
      "Example:\n"
      "  rat bench layer --layers rat:16 --seq-len 512 --json > rat-512.json     # and other lengths and layers\n"
      "  rat figure scaling rat-*.json attention-*.json --phase prefill --metric memory --out scaling.pdf");
  finish_command(command, context, [options, &context] { return from_bench(*options, context); });
}

}  // namespace

void add_figure(CLI::App& command, Context& context) {
  const auto options = std::make_shared<FigureOptions>();
  command.add_option("RECIPE", options->recipe_file, "Recipe (JSON), as written beside every exported figure")
      ->type_name("");
  add_output(command, options, false);
  add_curves(command, context);
  add_tradeoff(command, context);
  add_throughput(command, context);
  add_evaluation(command, context);
  add_scaling(command, context);
  command.require_subcommand(0, 1);
  std::string formats;
  for (const Exporter& exporter : data_exporters())
    formats += fmt::format("  {:<5} {}\n", exporter.id, exporter.description);
  command.footer(
      fmt::format("Formats:\n  pdf, svg, png  drawn by rat-workbench, without a display; beside them the next three\n{}"
                  "\n"
                  "Examples:\n"
                  "  rat figure loss.json                      loss.pdf again, from the recipe beside it\n"
                  "  rat figure loss.json --out new --format pdf,svg\n"
                  "  rat figure curves --runs first,second --metric val_loss --out val.pdf\n"
                  "\n"
                  "The names of the files written go to stdout. Exit code 1 when a format could not be made.",
                  formats));
  finish_command(command, context, [options, &context] { return from_recipe(*options, context); });
}

}  // namespace rat::cli
