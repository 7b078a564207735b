#include "app/figure/rebuild.h"

#include <fstream>
#include <sstream>

#include "app/figure/render.h"
#include "experiments/store/store.h"

namespace rat::app {
namespace {

Result<std::string> read_text(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    return fail(ErrorCode::not_found, "There is no recipe '{}'; give the .json that was saved beside the figure.",
                path.string());
  if (std::filesystem::file_size(path, error) > 16 << 20)
    return fail(ErrorCode::corrupt_data, "'{}' is larger than 16 MiB and not a recipe.", path.string());
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return fail(ErrorCode::io_failure, "Could not read the recipe '{}'.", path.string());
  return text.str();
}

}  // namespace

Result<PlotDescription> plot_of_recipe(const Recipe& recipe, const std::filesystem::path& recipe_folder,
                                       const std::filesystem::path& database) {
  if (numbers_from(recipe.kind) == NumbersFrom::recipe) return build_plot(recipe);
  if (numbers_from(recipe.kind) == NumbersFrom::trace) {
    if (recipe.trace_file.empty())
      return fail(ErrorCode::invalid_argument, "The recipe names no 'trace_file', which an {} figure is drawn from.",
                  figure_kind_name(recipe.kind));
    RAT_ASSIGN(const TraceSnapshot trace, read_trace(recipe_folder / recipe.trace_file));
    return build_plot(recipe, trace);
  }
  RAT_ASSIGN(const StoreReader store, StoreReader::open(database));
  return build_plot(recipe, store, figure_max_points);
}

Status rebuild_figure(const std::filesystem::path& recipe_path, const std::filesystem::path& database,
                      const std::filesystem::path& out, std::string_view format) {
  RAT_ASSIGN(const std::string text, read_text(recipe_path));
  RAT_ASSIGN(const Recipe recipe, parse_recipe(text));
  RAT_ASSIGN(const PlotDescription plot, plot_of_recipe(recipe, recipe_path.parent_path(), database));
  const std::string extension = out.extension().string();
  if (format.empty() && extension.size() < 2)
    return fail(ErrorCode::invalid_argument,
                "'{}' has no extension to tell the format from; name it .pdf, .svg, .png, .csv or .tikz.",
                out.string());
  return render_figure(plot, recipe, out, format.empty() ? std::string_view(extension).substr(1) : format);
}

}  // namespace rat::app
