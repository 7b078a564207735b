// THE list of figure formats: those of views/plots/exporters.h and those that need a painter.
#pragma once

#include <span>

#include "views/plots/exporters.h"

namespace rat::app {

std::span<const Exporter> figure_exporters();  // pdf, svg, png, csv, tikz, json

}  // namespace rat::app
