// The pieces that the figures share. Internal to views/plots.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "experiments/run_spec.h"
#include "views/plots/metric_info.h"
#include "views/plots/plot_data.h"
#include "views/plots/recipe.h"

namespace rat {

Result<PlotDescription> build_curves(const Recipe& recipe, PlotData& data, int64_t max_points);
Result<PlotDescription> build_tradeoff(const Recipe& recipe, PlotData& data);
Result<PlotDescription> build_throughput(const Recipe& recipe, PlotData& data);
Result<PlotDescription> build_evaluation(const Recipe& recipe, PlotData& data);
Result<PlotDescription> build_scaling(const Recipe& recipe);

// The rows of the recipe's runs, in its order; an id that is not in the store is an error.
Result<std::vector<RunRow>> recipe_runs(const Recipe& recipe, PlotData& data);

// "cpu, f32, batch 16, T 512": what all these runs have in common; a setting that differs is left out.
std::string common_settings(const std::vector<RunRow>& runs);

// Runs with the same spec up to seed and name, in order of first appearance.
std::vector<std::vector<RunRow>> group_seeds(const std::vector<RunRow>& runs);

int64_t distinct_seeds(const std::vector<RunRow>& group);

// "3 seeds"; "3 runs of 2 seeds" where a seed was run again.
std::string count_of(const std::vector<RunRow>& group);

// One for each group in which a seed was run again: such runs say nothing about other seeds.
std::vector<std::string> repeated_seed_warnings(const std::vector<std::vector<RunRow>>& groups);

// The dash and marker that tell series k from its neighbours in print without colour.
Dash dash_of(std::size_t k);
Marker marker_of(std::size_t k);

// Typed labels and limits replace the derived ones.
void apply_axis(const Axis& wanted, Axis& axis);

}  // namespace rat
