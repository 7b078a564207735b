// How fast, and where the time and the memory go. Every number says its regime, batch, T and dtype.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "views/canvases/format.h"
#include "views/canvases/pen.h"
#include "views/canvases/readout.h"
#include "views/canvases/throughput_data.h"
#include "views/canvases/ticks.h"

namespace rat::views {
namespace {

struct TableRow {
  std::string name, value, note;
};

class ThroughputView final : public View {
 public:
  void draw(Frame& frame) override;
  ProbeRequest probes(const Selection&, const ModelConfig&) const override { return {}; }
  std::optional<Recipe> recipe(const Frame& frame) const override;

 private:
  float draw_speeds(const Pen& pen, Box box, const ThroughputData& data) const;
  float draw_steps(const Pen& pen, Box box, const ThroughputData& data, float plot_height) const;
  void plot_steps(const Pen& pen, const Box& plot, const ThroughputData& data, double low, double high) const;
  float draw_ops(const Pen& pen, Box box, const ThroughputData& data) const;
  float draw_cost(const Pen& pen, Box box, const ThroughputData& data) const;
  float content_height_ = 0;  // of the last frame: decides about the scroll bar
};

float section(const Pen& pen, Box& box, std::string_view title) {
  const float y = box.y0;
  pen.heading({box.x0, box.y0}, title);
  box.take_top(pen.caps->FontSize + pen.px(6));
  return y;
}

// name left, value right-aligned in its column, note after it when there is room.
void table(const Pen& pen, Box& box, const std::vector<TableRow>& rows, float value_right) {
  const float height = pen.px(26), text_y = (height - pen.line_height()) / 2;
  for (const TableRow& row : rows) {
    const Box at = box.take_top(height);
    if (at.height() < height) return;
    pen.text({at.x0, at.y0 + text_y}, pen.theme->secondary, row.name);
    const float right = std::min(at.x0 + value_right, at.x1);
    pen.text({right, at.y0 + text_y}, pen.theme->text, row.value, Align::right);
    if (right + pen.px(60) < at.x1)
      pen.text_fitted({right + pen.px(14), at.y0 + text_y}, pen.theme->secondary, row.note, at.x1 - right - pen.px(14));
    pen.hairline(at.x0, at.y1 - 1, at.x1, at.y1 - 1);
  }
}

float ThroughputView::draw_speeds(const Pen& pen, Box box, const ThroughputData& data) const {
  const float top = section(pen, box, "Speed, tokens per second");
  const float regime_width = pen.width("prefill") + pen.px(16), speed_width = pen.width("88.8 M tok/s") + pen.px(8);
  const float height = pen.line_height() * 2 + pen.px(12);
  for (const SpeedRow& row : data.speeds) {
    const Box at = box.take_top(height);
    const float y = at.y0 + pen.px(5), second = y + pen.line_height() + pen.px(2);
    pen.text({at.x0, y}, pen.theme->secondary, row.regime);
    const bool measured = !std::isnan(row.tokens_per_s);
    pen.text({at.x0 + regime_width + speed_width, y}, measured ? pen.theme->text : pen.theme->secondary,
             measured ? si(row.tokens_per_s, "tok/s") : "\xe2\x80\x93", Align::right);
    const float x = at.x0 + regime_width + speed_width + pen.px(16);
    const std::string spread =
        std::isnan(row.q1) ? row.basis : fmt::format("{}, IQR {} \xe2\x80\x93 {}", row.basis, si(row.q1), si(row.q3));
    pen.text_fitted({x, y}, pen.theme->secondary, row.conditions, at.x1 - x);
    pen.text_fitted({x, second}, pen.theme->secondary, spread, at.x1 - x);
    pen.hairline(at.x0, at.y1 - 1, at.x1, at.y1 - 1);
  }
  return box.y0 - top;
}

void ThroughputView::plot_steps(const Pen& pen, const Box& plot, const ThroughputData& data, double low,
                                double high) const {
  const auto y_of = [&](double ms) {
    return plot.y1 - static_cast<float>((std::clamp(ms, low, high) - low) / (high - low)) * plot.height();
  };
  const std::size_t count = data.step_ms.size();
  const auto x_of = [&](std::size_t i) {
    return plot.x0 + (static_cast<float>(i) + 0.5f) / static_cast<float>(count) * plot.width();
  };
  if (!std::isnan(data.step_q1))
    pen.fill({plot.x0, y_of(data.step_q3), plot.x1, std::max(y_of(data.step_q1), y_of(data.step_q3) + 1)},
             pen.theme->accent, 0.16f);
  std::vector<ImVec2> points;
  for (std::size_t i = 0; i < count; ++i)
    if (std::isfinite(data.step_ms[i])) points.push_back({x_of(i), y_of(data.step_ms[i])});
  if (points.size() == 1) pen.list->AddCircleFilled(points[0], pen.px(2), to_imgui(pen.theme->accent));
  // Segment by segment: a polyline's mitres tear at spikes.
  for (std::size_t i = 1; i < points.size(); ++i)
    pen.list->AddLine(points[i - 1], points[i], to_imgui(pen.theme->accent), pen.px(1.25f));
  if (!std::isnan(data.step_median)) {
    const float y = std::round(y_of(data.step_median));
    for (float x = plot.x0; x < plot.x1; x += pen.px(8))
      pen.list->AddRectFilled({x, y}, {std::min(x + pen.px(4), plot.x1), y + std::max(1.0f, pen.scale)},
                              to_imgui(pen.theme->text, 0.7f));
  }
  const ImVec2 mouse = ImGui::GetIO().MousePos;
  if (!plot.contains(mouse) || !ImGui::IsWindowHovered() || count == 0) return;
  const auto i =
      std::min(count - 1, static_cast<std::size_t>((mouse.x - plot.x0) / plot.width() * static_cast<float>(count)));
  pen.hairline(x_of(i), plot.y0, x_of(i), plot.y1);
  pen.text({plot.x1, plot.y0 - pen.line_height() - pen.px(4)}, pen.theme->text,
           fmt::format("step {}: {}", grouped(data.last_step - static_cast<int64_t>(count - 1 - i)),
                       milliseconds(data.step_ms[i])),
           Align::right);
}

float ThroughputView::draw_steps(const Pen& pen, Box box, const ThroughputData& data, float plot_height) const {
  const float top = box.y0, line = pen.line_height();
  section(pen, box, "Step time, ms, train, warm-up excluded");
  if (data.step_ms.empty()) {
    const std::string text = std::isnan(data.step_median)
                                 ? "No step has been measured yet."
                                 : fmt::format("last step stored: {}. The step-by-step record is in Curves.",
                                               milliseconds(data.step_median));
    box.take_top(pen.text_wrapped(box, pen.theme->secondary, text) + pen.px(8));
    return box.y0 - top;
  }
  const std::string spread =
      std::isnan(data.step_median)
          ? "warming up"
          : fmt::format("median {} (dashed), IQR {} \xe2\x80\x93 {} (band)", milliseconds(data.step_median),
                        milliseconds(data.step_q1), milliseconds(data.step_q3));
  pen.text_fitted({box.x0, box.y0}, pen.theme->secondary, spread, box.width());
  box.take_top(2 * line + pen.px(6));
  const Box area = box.take_top(plot_height);
  box.take_top(line + pen.px(10));
  float low = INFINITY, high = 0;
  for (const float ms : data.step_ms)
    if (std::isfinite(ms)) low = std::min(low, ms), high = std::max(high, ms);
  if (!(high > 0)) return box.y0 - top;
  const double from = low < 0.6f * high ? 0 : std::max(0.0, low - 0.25 * (high - low) - 0.02 * high),
               to = high + 0.1 * (high - low) + 0.01 * high;
  Box plot = area;
  plot.take_left(pen.width("88,888") + pen.px(8));
  for (const double tick : linear_ticks(from, to, std::max(2, static_cast<int>(plot.height() / (2 * line))))) {
    const float y = plot.y1 - static_cast<float>((tick - from) / (to - from)) * plot.height();
    pen.hairline(plot.x0, y, plot.x1, y);
    pen.text({plot.x0 - pen.px(6), y - line / 2}, pen.theme->secondary,
             tick >= 1000 ? grouped(static_cast<int64_t>(tick)) : fmt::format("{:g}", tick), Align::right);
  }
  plot_steps(pen, plot, data, from, to);
  const auto count = static_cast<int64_t>(data.step_ms.size());
  pen.text({plot.x0, plot.y1 + pen.px(4)}, pen.theme->secondary,
           fmt::format("step {}", grouped(std::max<int64_t>(data.last_step - count + 1, 0))));
  pen.text({plot.x1, plot.y1 + pen.px(4)}, pen.theme->secondary, grouped(data.last_step), Align::right);
  return box.y0 - top;
}

float ThroughputView::draw_ops(const Pen& pen, Box box, const ThroughputData& data) const {
  const float top = section(pen, box, "Time per operation, train, share of the step");
  const double total = data.ops.total_ms();
  if (!(total > 0)) {
    box.take_top(pen.text_wrapped(box, pen.theme->secondary, "Not measured yet: it comes with the first steps.") +
                 pen.px(8));
    return box.y0 - top;
  }
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < op_names.size(); ++i)
    if (data.ops.ms[i] > 0) order.push_back(i);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return data.ops.ms[a] > data.ops.ms[b]; });
  // The step's wall time is the whole; what no timer covers is shown as such.
  const double step = !std::isnan(data.step_median) && data.step_median > 0 ? data.step_median : total;
  const double other = std::max(0.0, step - total), whole = std::max(step, total);
  const float names = pen.width("cross entropy") + pen.px(10), numbers = pen.width("888.8 ms  88.8 %") + pen.px(8),
              height = pen.px(22);
  double most = other;
  for (const std::size_t i : order) most = std::max(most, data.ops.ms[i]);
  const auto bar = [&](std::string_view name, double ms, Color color) {
    const Box at = box.take_top(height);
    const float text_y = at.y0 + (height - pen.line_height()) / 2;
    pen.text({at.x0, text_y}, pen.theme->secondary, name);
    const Box track{at.x0 + names, at.y0 + pen.px(5), std::max(at.x1 - numbers, at.x0 + names), at.y1 - pen.px(5)};
    pen.fill(track, pen.theme->raised, 1, pen.px(2));
    pen.fill({track.x0, track.y0, track.x0 + std::max(1.0f, static_cast<float>(ms / most) * track.width()), track.y1},
             color, 1, pen.px(2));
    pen.text({at.x1 - pen.width("88.8 %") - pen.px(10), text_y}, pen.theme->text, milliseconds(ms), Align::right);
    pen.text({at.x1, text_y}, pen.theme->secondary, percent(ms / whole), Align::right);
  };
  for (const std::size_t i : order)
    bar(op_names[i], data.ops.ms[i],
        i == static_cast<std::size_t>(Op::probes) ? pen.theme->warning : pen.theme->accent);
  if (other > 0.005 * whole) bar("not timed", other, pen.theme->secondary);
  if (data.spec && data.spec->device != "cpu")
    box.take_top(pen.text_wrapped(box, pen.theme->secondary,
                                  fmt::format("Operations are timed in the first and every {}th step, started one by "
                                              "one; other steps are replayed as a whole.",
                                              op_times_every)) +
                 pen.px(4));
  if (!std::isnan(data.probe_share)) {
    box.take_top(pen.px(4));
    const bool over = data.probe_share > data.probe_budget;
    const Box at = box.take_top(pen.line_height() + pen.px(4));
    pen.text_fitted(
        at.min(), over ? pen.theme->warning : pen.theme->ok,
        fmt::format("probes cost {} of training, budget {}", percent(data.probe_share), percent(data.probe_budget)),
        at.width());
  }
  return box.y0 - top;
}

float ThroughputView::draw_cost(const Pen& pen, Box box, const ThroughputData& data) const {
  const float top = section(pen, box, "Memory and work, against the cost model");
  std::vector<TableRow> rows;
  if (data.cost) {
    const CostEstimate& cost = *data.cost;
    const std::string t = grouped(data.spec->train.seq_len);
    rows.push_back({"parameters", si(static_cast<double>(cost.parameters)),
                    "f32: " + bytes_text(4.0 * static_cast<double>(cost.parameters))});
    rows.push_back({"train FLOPs / token", si(cost.train_flops_per_token), "model, T " + t});
    rows.push_back({"train FLOP/s", std::isnan(data.train_flops_per_s) ? "\xe2\x80\x93" : si(data.train_flops_per_s),
                    "model FLOPs \xc3\x97 measured tok/s"});
    rows.push_back({"prefill FLOPs / token", si(cost.prefill_flops_per_token), "model, T " + t});
    rows.push_back({"decode FLOPs / token", si(cost.decode_flops_per_token), "model, at position " + t});
    rows.push_back({"decode cache, model", bytes_text(static_cast<double>(cost.decode_cache_bytes)),
                    "one sequence of T " + t + ", f32"});
    if (!std::isnan(data.cache_bytes))
      rows.push_back({"decode cache, measured", bytes_text(data.cache_bytes), "end of the run"});
    rows.push_back(
        {"training memory, model", bytes_text(static_cast<double>(cost.training_bytes)), "weights, moments, batch"});
  } else {
    box.take_top(
        pen.text_wrapped(box, pen.theme->warning, "The stored spec of this run cannot be read: no cost model.") +
        pen.px(4));
  }
  rows.push_back({"peak memory, measured", std::isnan(data.peak_bytes) ? "\xe2\x80\x93" : bytes_text(data.peak_bytes),
                  data.spec && data.spec->device != "cpu" ? "on " + data.spec->device : "whole process"});
  table(pen, box, rows, pen.width("training memory, model") + pen.px(16) + pen.width("888.8 MB"));
  return box.y0 - top;
}

void ThroughputView::draw(Frame& frame) {
  const Pen outer = Pen::of(frame);
  Box box = canvas_box(outer);
  if (box.empty()) return;
  if (frame.training) message_line(outer, box, frame.training->message_is_error ? frame.training->message : "", true);
  const std::optional<ThroughputData> data = gather_throughput(frame);
  if (!data) {
    empty_state(outer, box, frame.subject == Subject::stored ? "No stored run is open." : "No run is open.",
                "Press Start, or open a run in the table below.");
    return;
  }
  ImGui::SetCursorScreenPos(box.min());
  ImGui::BeginChild("throughput", {std::max(box.width(), 1.0f), std::max(box.height(), 1.0f)}, false);
  const Pen pen = Pen::of(frame);
  const ImVec2 origin = ImGui::GetCursorScreenPos();
  const float scroll_bar = content_height_ > box.height() ? ImGui::GetStyle().ScrollbarSize + pen.px(4) : 0;
  Box page{origin.x, origin.y, origin.x + box.width() - scroll_bar, origin.y + 1e6f};
  pen.text_fitted(page.min(), pen.theme->text, data->title, page.width());
  page.take_top(pen.line_height() + pen.px(12));
  const bool two_columns = page.width() > pen.px(760);
  const float gap = pen.px(20);
  if (two_columns) {
    Box left = page.take_left(std::round((page.width() - pen.px(36)) / 2));
    page.take_left(pen.px(36));
    Box right = page;
    left.take_top(draw_speeds(pen, left, *data) + gap);
    const float used = left.y0 - origin.y + pen.caps->FontSize + 3 * pen.line_height() +
                       pen.px(30);  // the plot takes the rest of the canvas
    left.take_top(draw_steps(pen, left, *data, std::clamp(box.height() - used, pen.px(120), pen.px(420))));
    right.take_top(draw_ops(pen, right, *data) + gap);
    right.take_top(draw_cost(pen, right, *data));
    content_height_ = std::max(left.y0, right.y0) - origin.y;
  } else {
    page.take_top(draw_speeds(pen, page, *data) + gap);
    page.take_top(draw_steps(pen, page, *data, pen.px(140)) + gap);
    page.take_top(draw_ops(pen, page, *data) + gap);
    page.take_top(draw_cost(pen, page, *data));
    content_height_ = page.y0 - origin.y;
  }
  ImGui::SetCursorScreenPos(origin);
  ImGui::Dummy({1, content_height_});
  ImGui::EndChild();
}

std::optional<Recipe> ThroughputView::recipe(const Frame& frame) const {
  const std::optional<ThroughputData> data = gather_throughput(frame);
  if (!data || data->run_id.empty()) return std::nullopt;
  Recipe recipe;
  recipe.kind = FigureKind::throughput;
  recipe.runs = {data->run_id};
  return recipe;
}

}  // namespace

std::unique_ptr<View> make_throughput_view() { return std::make_unique<ThroughputView>(); }

}  // namespace rat::views
