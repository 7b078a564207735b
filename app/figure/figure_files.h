// Everything that one Save writes: the chosen formats, and beside them the trace that a heat map is rebuilt from.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/trace/snapshot.h"
#include "views/plots/plot.h"
#include "views/plots/recipe.h"

namespace rat::app {

// Writes stem.pdf, stem.csv, ... for `formats`; with a trace also stem-trace.safetensors, which the recipe then names.
// Each file is written atomically. Returns the files in order.
Result<std::vector<std::filesystem::path>> write_figure_files(const PlotDescription& plot, Recipe recipe,
                                                              const TraceSnapshot* trace,
                                                              const std::filesystem::path& stem,
                                                              const std::vector<std::string>& formats);

}  // namespace rat::app
