// A figure again, from its recipe: `rat-workbench --figure RECIPE --db DB --out FILE`.
#pragma once

#include <filesystem>
#include <string_view>

#include "views/plots/recipe.h"

namespace rat::app {

// The description a recipe stands for: from the database, the trace file beside the recipe, or the recipe.
Result<PlotDescription> plot_of_recipe(const Recipe& recipe, const std::filesystem::path& recipe_folder,
                                       const std::filesystem::path& database);

// `format` empty: from the extension of `out`. Needs a QApplication.
Status rebuild_figure(const std::filesystem::path& recipe, const std::filesystem::path& database,
                      const std::filesystem::path& out, std::string_view format = "");

}  // namespace rat::app
