#include "app/cli/figure_files.h"

#include <algorithm>
#include <array>
#include <optional>

#include "app/cli/output.h"
#include "app/cli/sibling.h"
#include "build_info.h"
#include "views/plots/exporters.h"

namespace rat::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 3> picture_formats{"pdf", "svg", "png"};

bool is_picture(std::string_view format) { return std::ranges::find(picture_formats, format) != picture_formats.end(); }

fs::path with_extension(const fs::path& out, std::string_view format) {
  fs::path stem = out;
  const std::string extension = out.extension().string();
  const std::vector<std::string> known = known_formats();
  if (!extension.empty() && std::ranges::find(known, extension.substr(1)) != known.end()) stem.replace_extension();
  return stem.string() + "." + std::string(format);
}

Result<PlotDescription> describe(const Recipe& recipe, const fs::path& trace_file, const fs::path& database) {
  if (numbers_from(recipe.kind) == NumbersFrom::recipe) return build_plot(recipe);
  if (numbers_from(recipe.kind) == NumbersFrom::trace) {
    RAT_ASSIGN(const TraceSnapshot trace, read_trace(trace_file));
    return build_plot(recipe, trace);
  }
  RAT_ASSIGN(const StoreReader store, StoreReader::open(database));
  return build_plot(recipe, store);
}

struct Written {
  std::vector<std::string> files;
  std::vector<std::string> missing;  // formats that could not be made
  std::string reason;
};

Status write_data(const PlotDescription& plot, const Recipe& recipe, const FigureRequest& request,
                  const std::vector<std::string>& formats, Written& written) {
  for (const std::string& format : formats) {
    if (is_picture(format)) continue;
    RAT_ASSIGN(const Exporter* exporter, find_exporter(data_exporters(), format));
    const fs::path path = with_extension(request.out, format);
    std::error_code error;
    if (fs::equivalent(path, request.recipe_file, error)) continue;
    RAT_TRY(exporter->write(plot, recipe, path));
    written.files.push_back(path.string());
  }
  return ok();
}

Status write_pictures(const fs::path& out, const std::vector<std::string>& formats, const fs::path& database,
                      Written& written) {
  const std::optional<fs::path> program = find_window_program();
  for (const std::string& format : formats) {
    if (!is_picture(format)) continue;
    if (!program) {
      written.missing.push_back(format);
      continue;
    }
    const fs::path path = with_extension(out, format);
    RAT_TRY(run_window_program(*program, {"--figure", with_extension(out, "json").string(), "--db", database.string(),
                                          "--out", path.string()}));
    std::error_code error;
    if (!fs::exists(path, error))
      return fail(ErrorCode::io_failure, "{} ended without an error but did not write {}.", program->string(),
                  path.string());
    written.files.push_back(path.string());
  }
  if (!written.missing.empty())
    written.reason = fmt::format(
        "{} not written: that needs the window program rat-workbench, which is neither beside rat nor in PATH.",
        fmt::join(written.missing, ", "));
  return ok();
}

// Asked-for formats, then what lies beside every picture: the numbers, the pgfplots source; and always the recipe.
std::vector<std::string> with_companions(std::vector<std::string> formats) {
  const bool picture = std::ranges::any_of(formats, is_picture);
  for (const char* companion : {"csv", "tikz", "json"})
    if ((picture || std::string_view(companion) == "json") && std::ranges::find(formats, companion) == formats.end())
      formats.emplace_back(companion);
  return formats;
}

}  // namespace

std::vector<std::string> known_formats() {
  std::vector<std::string> formats(picture_formats.begin(), picture_formats.end());
  for (const Exporter& exporter : data_exporters()) formats.emplace_back(exporter.id);
  return formats;
}

Result<std::vector<std::string>> formats_of(const FigureRequest& request) {
  std::vector<std::string> formats = request.formats;
  const std::string extension = request.out.extension().string();
  if (formats.empty()) formats.push_back(extension.empty() ? "pdf" : extension.substr(1));
  const std::vector<std::string> known = known_formats();
  for (const std::string& format : formats)
    if (std::ranges::find(known, format) == known.end())
      return fail(ErrorCode::invalid_argument, "'{}' is not a figure format: choose from {}.", format,
                  fmt::join(known, ", "));
  return formats;
}

Result<int> write_figure(Recipe recipe, const fs::path& recipe_folder, const FigureRequest& request,
                         const Context& context) {
  RAT_ASSIGN(const std::vector<std::string> asked, formats_of(request));
  const std::vector<std::string> formats = with_companions(asked);
  const fs::path trace_file = recipe_folder / recipe.trace_file;
  RAT_ASSIGN(const PlotDescription plot, describe(recipe, trace_file, context.database_path()));
  std::error_code error;
  const fs::path out_folder = fs::absolute(request.out).parent_path();
  if (!fs::is_directory(out_folder, error))
    return fail(ErrorCode::not_found, "The folder {} does not exist: make it first.", out_folder.string());
  // The recipe that is written beside the figure finds the same trace from its own folder.
  if (!recipe.trace_file.empty()) recipe.trace_file = fs::relative(trace_file, out_folder, error).string();
  recipe.commit = build_info::commit;

  Written written;
  RAT_TRY(write_data(plot, recipe, request, formats, written));
  RAT_TRY(write_pictures(request.out, formats, context.database_path(), written));
  for (const std::string& warning : plot.warnings) print_note("note: " + warning);
  if (!written.reason.empty()) print_error(written.reason);
  if (context.json)
    print_json({{"files", written.files},
                {"missing", written.missing},
                {"reason", written.reason},
                {"note", plot.note},
                {"warnings", plot.warnings},
                {"runs", plot.run_ids}});
  else
    for (const std::string& file : written.files) fmt::print("{}\n", file);
  return written.missing.empty() ? exit_done : exit_failed;
}

}  // namespace rat::cli
