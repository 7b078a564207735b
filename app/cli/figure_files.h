// From a recipe to files: data formats here, pictures through the window program.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "app/cli/context.h"
#include "views/plots/recipe.h"

namespace rat::cli {

struct FigureRequest {
  std::filesystem::path out;          // its extension is a format when `formats` is empty
  std::vector<std::string> formats;   // pdf, svg, png, csv, tikz
  std::filesystem::path recipe_file;  // where the recipe was read, if it was: never written over
};

// The formats to write; an unknown or a missing one is an error that lists the known ones.
Result<std::vector<std::string>> formats_of(const FigureRequest& request);
std::vector<std::string> known_formats();

// Writes the figure and prints what was written. `recipe_folder`: where the recipe's trace file is looked for.
Result<int> write_figure(Recipe recipe, const std::filesystem::path& recipe_folder, const FigureRequest& request,
                         const Context& context);

}  // namespace rat::cli
