#include "app/cli/eval_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace rat::cli {
namespace {

constexpr int64_t table_bins = 16;

using enum Table::Align;

// "2.3457 ± 0.0123"; without the error when there is none.
std::string with_error(const EvaluationPoint& point, double scale = 1, int decimals = 4) {
  const std::string value = fmt::format("{:.{}f}", scale * point.value, decimals);
  if (!std::isfinite(point.standard_error)) return value;
  return fmt::format("{} ± {:.{}f}", value, scale * point.standard_error, decimals);
}

std::string percent(const EvaluationPoint* point) { return point ? with_error(*point, 100, 2) + " %" : "-"; }
std::string percent_only(const EvaluationPoint* point) {
  return point ? fmt::format("{:.2f} %", 100 * point->value) : "-";
}

Json settings_document(const Evaluation& evaluation) {
  const Json settings = Json::parse(evaluation.settings, nullptr, false);
  return settings.is_discarded() ? Json(evaluation.settings) : settings;
}

bool measures_bytes(const Evaluation& evaluation) {
  const Json settings = settings_document(evaluation);
  return settings.is_object() && settings.value("tokens_are", "") == "bytes";
}

// Through decoding: the losses less those of something else.
bool is_compared(const Evaluation& evaluation) {
  return std::ranges::any_of(evaluation.points,
                             [](const EvaluationPoint& point) { return point.metric == "loss_difference"; });
}

std::vector<int64_t> lengths_of(const Evaluation& evaluation) {
  std::set<int64_t> lengths;
  for (const EvaluationPoint& point : evaluation.points) lengths.insert(point.seq_len);
  return {lengths.begin(), lengths.end()};
}

// The run's own length where it was measured, else the shortest.
int64_t headline_length(const Evaluation& evaluation, int64_t seq_len) {
  const std::vector<int64_t> lengths = lengths_of(evaluation);
  if (lengths.empty() || std::ranges::find(lengths, seq_len) != lengths.end()) return seq_len;
  return lengths.front();
}

// One row a length.
std::string length_table(const Evaluation& evaluation) {
  const bool bytes = measures_bytes(evaluation);
  std::vector<Table::Column> columns{{"T", right}, {"loss (nats)", right}, {"perplexity", right}};
  if (bytes) columns.push_back({"bits/byte", right});
  const bool beyond = evaluation.task == "length";
  if (beyond) columns.push_back({"loss beyond training", right});
  const bool compared = is_compared(evaluation);
  if (compared) columns.insert(columns.end(), {{"difference (nats)", right}, {"of perplexity", right}});
  const auto lengths = lengths_of(evaluation);
  const bool asks =
      std::ranges::any_of(lengths, [&](int64_t T) { return overall(evaluation, "chance", T) != nullptr; });
  columns.push_back({"accuracy", right});
  if (asks) columns.insert(columns.end(), {{"chance", right}, {"in context", right}});
  columns.insert(columns.end(), {{"n", right}, {"targets", right}});
  Table table(columns);
  for (const int64_t T : lengths) {
    const EvaluationPoint* loss = overall(evaluation, "loss", T);
    if (!loss) continue;
    std::vector<std::string> row{std::to_string(T), with_error(*loss), fmt::format("{:.3f}", std::exp(loss->value))};
    if (bytes) row.push_back(fmt::format("{:.4f}", loss->value / std::log(2.0)));
    const EvaluationPoint* late = overall(evaluation, "loss_beyond", T);
    if (beyond) row.push_back(late ? with_error(*late) : "-");
    if (const EvaluationPoint* less = overall(evaluation, "loss_difference", T); compared) {
      row.push_back(less ? with_error(*less, 1, 6) : "-");
      row.push_back(less ? fmt::format("x {:.5f}", std::exp(less->value)) : "-");
    }
    row.push_back(percent(overall(evaluation, "accuracy", T)));
    if (asks) {
      row.push_back(percent_only(overall(evaluation, "chance", T)));
      row.push_back(percent_only(overall(evaluation, "context_chance", T)));
    }
    row.push_back(std::to_string(loss->sequences));
    row.push_back(std::to_string(loss->targets));
    table.add(row);
  }
  return table.text();
}

// Depths down, lengths across.
std::string depth_table(const Evaluation& evaluation) {
  std::map<double, std::map<int64_t, const EvaluationPoint*>> cells;
  for (const EvaluationPoint& point : evaluation.points)
    if (point.depth) cells[*point.depth][point.seq_len] = &point;
  const auto lengths = lengths_of(evaluation);
  std::vector<Table::Column> columns{{"depth", right}};
  for (const int64_t T : lengths) columns.push_back({fmt::format("T = {}", T), right});
  Table table(columns);
  for (const auto& [depth, row] : cells) {
    std::vector<std::string> texts{fmt::format("{:g}", depth)};
    for (const int64_t T : lengths) texts.push_back(row.contains(T) ? percent(row.at(T)) : "-");
    table.add(texts);
  }
  return "accuracy by depth and length\n" + table.text();
}

// Loss of one length, averaged over bins of positions, each position weighing as much as it has predictions.
std::string position_table(const Evaluation& evaluation, int64_t T) {
  const int64_t bin = (T + table_bins - 1) / table_bins;
  std::map<int64_t, EvaluationPoint> bins;
  for (const EvaluationPoint& point : evaluation.points) {
    if (!point.position || point.seq_len != T) continue;
    EvaluationPoint& sum = bins[*point.position / bin];
    sum.value += point.value * static_cast<double>(point.targets);
    sum.targets += point.targets;
    sum.sequences = std::max(sum.sequences, point.sequences);
  }
  Table table({{"positions"}, {"loss (nats)", right}, {"n", right}, {"targets", right}});
  for (const auto& [index, sum] : bins)
    table.add({fmt::format("{} - {}", index * bin, std::min(T, (index + 1) * bin) - 1),
               fmt::format("{:.4f}", sum.value / static_cast<double>(sum.targets)), std::to_string(sum.sequences),
               std::to_string(sum.targets)});
  return fmt::format("loss by position, T = {}, bins of {} (--json and --csv have every position with its error)\n{}",
                     T, bin, table.text());
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json point_document(const EvaluationPoint& point) {
  Json row{{"metric", point.metric}, {"seq_len", point.seq_len}};
  if (point.depth) row["depth"] = *point.depth;
  if (point.position) row["position"] = *point.position;
  row["value"] = number(point.value);
  row["standard_error"] = number(point.standard_error);
  row["sequences"] = point.sequences;
  row["targets"] = point.targets;
  return row;
}

}  // namespace

std::string evaluation_table(const Evaluation& evaluation) {
  std::string text = length_table(evaluation);
  if (const Json settings = settings_document(evaluation); is_compared(evaluation))
    text += fmt::format("difference: decoding with a cache in {}, less {}, prediction by prediction\n",
                        settings.value("cache", ""), settings.value("compared_with", ""));
  const auto has = [&](auto member) {
    return std::ranges::any_of(evaluation.points,
                               [&](const EvaluationPoint& point) { return (point.*member).has_value(); });
  };
  if (has(&EvaluationPoint::depth)) text += "\n" + depth_table(evaluation);
  if (has(&EvaluationPoint::position))
    for (const int64_t T : lengths_of(evaluation)) text += "\n" + position_table(evaluation, T);
  return text;
}

std::string evaluation_headline(const Evaluation& evaluation, int64_t seq_len) {
  const int64_t T = headline_length(evaluation, seq_len);
  const EvaluationPoint* loss = overall(evaluation, "loss", T);
  const EvaluationPoint* accuracy = overall(evaluation, "accuracy", T);
  return fmt::format("T = {}: loss {}, accuracy {}", T, loss ? with_error(*loss) : "-", percent(accuracy));
}

Json evaluation_document(const Evaluation& evaluation, int64_t seq_len) {
  const int64_t T = headline_length(evaluation, seq_len);
  Json row{{"task", evaluation.task}, {"step", evaluation.step}, {"seq_len", T}};
  if (const EvaluationPoint* loss = overall(evaluation, "loss", T)) {
    row["loss"] = number(loss->value);
    row["loss_standard_error"] = number(loss->standard_error);
    row["perplexity"] = number(std::exp(loss->value));
    if (measures_bytes(evaluation)) row["bits_per_byte"] = number(loss->value / std::log(2.0));
    row["sequences"] = loss->sequences;
    row["targets"] = loss->targets;
  }
  for (const std::string metric : {"loss_difference", "accuracy", "chance", "context_chance"}) {
    const EvaluationPoint* point = overall(evaluation, metric, T);
    if (!point) continue;
    row[metric] = number(point->value);
    if (metric == "accuracy" || metric == "loss_difference")
      row[metric + "_standard_error"] = number(point->standard_error);
  }
  row["data"] = evaluation.data_description;
  row["data_hash"] = evaluation.data_hash;
  row["settings"] = settings_document(evaluation);
  row["device"] = evaluation.device;
  row["dtype"] = evaluation.dtype;
  row["notes"] = evaluation.notes;
  row["elapsed_s"] = evaluation.elapsed_s;
  row["points"] = Json::array();
  for (const EvaluationPoint& point : evaluation.points) row["points"].push_back(point_document(point));
  return row;
}

std::string evaluation_csv(const std::string& run, const std::vector<Evaluation>& evaluations) {
  std::string text = "run,task,step,metric,seq_len,depth,position,value,standard_error,sequences,targets\n";
  for (const Evaluation& evaluation : evaluations)
    for (const EvaluationPoint& point : evaluation.points)
      text += fmt::format("{},{},{},{},{},{},{},{},{},{},{}\n", run, evaluation.task, evaluation.step, point.metric,
                          point.seq_len, point.depth ? fmt::format("{}", *point.depth) : "",
                          point.position ? fmt::format("{}", *point.position) : "", point.value,
                          std::isfinite(point.standard_error) ? fmt::format("{}", point.standard_error) : "",
                          point.sequences, point.targets);
  return text;
}

}  // namespace rat::cli
