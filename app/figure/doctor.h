// What a reviewer or a printer would complain about, before the file is written.
#pragma once

#include <string>
#include <vector>

#include "views/plots/plot.h"
#include "views/plots/recipe.h"

namespace rat::app {

struct Finding {
  bool good = true;
  std::string text;  // one sentence
};

// Text size, width, fonts, grey-scale, colour-blindness, colour bar, smoothing and n, what is not drawn.
std::vector<Finding> examine_figure(const PlotDescription& plot, const Recipe& recipe);

// A caption that says what the numbers are: "Validation loss. cpu, f32, batch 16, T 512 · ... Runs: ..."
std::string caption_of(const PlotDescription& plot);

}  // namespace rat::app
