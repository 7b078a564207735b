#include "app/figure/figure_files.h"

#include <algorithm>

#include "app/figure/render.h"

namespace rat::app {

Result<std::vector<std::filesystem::path>> write_figure_files(const PlotDescription& plot, Recipe recipe,
                                                              const TraceSnapshot* trace,
                                                              const std::filesystem::path& stem,
                                                              const std::vector<std::string>& formats) {
  if (stem.filename().empty())
    return fail(ErrorCode::invalid_argument, "'{}' is a folder; give the figure a name.", stem.string());
  std::vector<std::filesystem::path> written;
  const bool rebuildable = std::find(formats.begin(), formats.end(), "json") != formats.end();
  if (trace && rebuildable) {
    const std::filesystem::path file = stem.string() + "-trace.safetensors";
    RAT_TRY(write_trace(file, trace_of_figure(recipe, *trace)));
    recipe.trace_file = file.filename().string();
    written.push_back(file);
  }
  for (const std::string& format : formats) {
    const std::filesystem::path file = stem.string() + "." + format;
    RAT_TRY(render_figure(plot, recipe, file, format));
    written.push_back(file);
  }
  return written;
}

}  // namespace rat::app
