// Where each query token looks. rat: [T x (C + 1)] over chunk-end states and the query's own running state;
// attention, swa: [T x T]. NaN cells (nobody may see them) take the background, so a mask is never read as a zero.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "views/canvases/attention_map.h"
#include "views/canvases/attention_overview.h"
#include "views/canvases/format.h"
#include "views/canvases/layer_dial.h"
#include "views/canvases/map_controls.h"
#include "views/canvases/readout.h"
#include "views/canvases/token_text.h"
#include "views/canvases/unfold.h"
#include "views/canvases/view.h"

namespace rat::views {
namespace {

constexpr int64_t context_tokens = 160;  // token map: keys shown around the one under the mouse

class AttentionView final : public View {
 public:
  void draw(Frame& frame) override;
  ProbeRequest probes(const Selection& selection, const ModelConfig& model) const override;
  std::optional<Recipe> recipe(const Frame& frame) const override;
  bool key_pressed(int key, bool ctrl, bool shift, Frame& frame) override;
  Options options() const override {
    Options options;
    controls_.save(options);
    return options;
  }
  void set_options(const Options& options) override { controls_.load(options); }

 private:
  std::optional<AttentionMap> find_map(const TraceSnapshot& trace, const Selection& selection) const;
  void draw_title(const Pen& pen, Box& box, const AttentionMap& map, const std::string& run);
  void draw_map(const Pen& pen, Box box, Frame& frame, const AttentionMap& map);
  void draw_profile(const Pen& pen, const Box& box, const MapResult& result, const AttentionMap& map,
                    const ColorScale& scale, int64_t row, int64_t col);
  void draw_tokens(const Pen& pen, const Box& box, const AttentionMap& map, const ColorScale& scale, int64_t row,
                   int64_t col);
  Readout readout(const AttentionMap& map, int64_t row, int64_t col, bool pinned) const;
  void explain_missing(const Pen& pen, const Box& box, const TraceSnapshot& trace, const Selection& selection) const;
  bool explain_no_attention(const Frame& frame, const Pen& pen, const Box& box) const;
  void update_selection(Selection& selection, const MapResult& result);

  HeatMapWidget map_{"attention"};
  AttentionOverview overview_{"attention/overview"};
  MapControls controls_{ScaleKind::log};
  int64_t broken_ = 0;  // weights that are NaN or infinite though a query may see them
  std::string identity_of_count_;
  bool owns_hover_ = false;
};

std::string plural(int64_t count, std::string_view one) {
  return fmt::format("{} {}{}", grouped(count), one, count == 1 ? "" : "s");
}

std::string identity_of(const Frame& frame) {
  return fmt::format("{}/{}", static_cast<const void*>(frame.trace.get()), frame.trace->serial);
}

std::optional<AttentionMap> AttentionView::find_map(const TraceSnapshot& trace, const Selection& selection) const {
  const ProbeTensor* tensor = trace.find(Probe::attention, selection.layer);
  if (!tensor || tensor->shape.size() != 3 || selection.head >= tensor->shape[0] || tensor->values.empty())
    return std::nullopt;
  if (tensor->shape[1] > trace.token_count()) return std::nullopt;
  AttentionMap map{&trace,          tensor,         trace.model.layers[static_cast<std::size_t>(selection.layer)],
                   selection.layer, selection.head, 0};
  map.chunk = chunk_length(map.layer, trace.token_count());
  return map;
}

void AttentionView::explain_missing(const Pen& pen, const Box& box, const TraceSnapshot& trace,
                                    const Selection& selection) const {
  const LayerConfig& layer = trace.model.layers[static_cast<std::size_t>(selection.layer)];
  if (!has_probe(layer, Probe::attention)) {
    empty_state(
        pen, box, fmt::format("Layer {} is {}: it has no attention weights.", selection.layer, format_layer(layer)),
        "Its memory is one running state: see the States canvas (Ctrl+2), or pick another layer above (Up / Down).");
  } else {
    empty_state(pen, box, fmt::format("Recording layer {} ({})...", selection.layer, format_layer(layer)),
                "The map appears with the next recorded step.");
  }
}

// Of a model without attention nothing is recorded, and nothing will be.
bool AttentionView::explain_no_attention(const Frame& frame, const Pen& pen, const Box& box) const {
  const bool recorded = frame.trace && frame.trace->token_count() > 0;
  if (recorded || frame.subject != Subject::stored || !frame.stored_run) return false;
  const auto layers = parse_layers(frame.stored_run->layers);
  if (!layers || layers->empty()) return false;
  if (std::ranges::any_of(*layers, [](const LayerConfig& layer) { return has_probe(layer, Probe::attention); }))
    return false;
  empty_state(pen, box, fmt::format("{} has no attention weights.", frame.stored_run->layers),
              "Its memory is running states: see the States canvas (Ctrl+2).");
  return true;
}

void AttentionView::draw_title(const Pen& pen, Box& box, const AttentionMap& map, const std::string& run) {
  const std::string title =
      fmt::format("Layer {} \xc2\xb7 {} \xc2\xb7 head {}", map.layer_index, format_layer(map.layer), map.head);
  std::string what = map.by_chunk() ? fmt::format("{} + own state, {}", plural(map.keys() - 1, "chunk"),
                                                  plural(map.queries(), "token"))
                                    : plural(map.queries(), "token");
  what = run + what + " \xc2\xb7 " + trace_caption(*map.trace);
  if (const std::string note = map_.reduction_note(); !note.empty()) what += " \xc2\xb7 " + note;
  if (broken_ > 0) what += fmt::format(" \xc2\xb7 {} NaN or infinite", plural(broken_, "weight"));
  const float line = pen.line_height(), control = pen.px(small_control);
  const float controls = controls_.width(pen, false);
  Box row = box.take_top(control);
  if (pen.width(title) + controls + pen.px(16) > row.width()) {  // narrow: controls get their own line
    pen.text_fitted({row.x0, row.y0 + (control - line) / 2}, pen.theme->text, title, row.width());
    row = box.take_top(control);
    if (controls <= row.width()) controls_.draw(pen, row.x0 + controls, row.y0, control, map_, false);
  } else {
    pen.text({row.x0, row.y0 + (control - line) / 2}, pen.theme->text, title);
    controls_.draw(pen, row.x1, row.y0, control, map_, false);
  }
  box.take_top(pen.px(1));
  box.take_top(pen.text_wrapped(box, pen.theme->secondary, what) + pen.px(3));
}

void AttentionView::update_selection(Selection& selection, const MapResult& result) {
  if (result.hovered) {
    selection.hover_token = result.row, selection.hover_key = result.col;
    owns_hover_ = true;
  } else if (owns_hover_) {
    selection.hover_token = selection.hover_key = -1;
    owns_hover_ = false;
  }
  if (result.clicked && result.hovered) selection.query_token = result.row, selection.key = result.col;
}

void AttentionView::draw_map(const Pen& pen, Box box, Frame& frame, const AttentionMap& map) {
  Selection& selection = *frame.selection;
  const std::string identity = fmt::format("{}/{}/{}", identity_of(frame), map.layer_index, map.head);
  const int64_t cells = map.queries() * map.keys();
  const bool usable =
      map_.request_matrix(fmt::format("{}/{}", map.layer_index, map.head), identity, cells, [trace = frame.trace, map] {
        return MatrixPyramid(trace, map.tensor->values.data() + map.head * map.queries() * map.keys(), map.queries(),
                             map.keys(), map.keys(), CellKind::masked);
      });
  frame.wants_frame = frame.wants_frame || map_.pending();
  if (!usable || map_.matrix().rows() != map.queries() || map_.matrix().cols() != map.keys()) {
    empty_state(pen, box, "Preparing the map...",
                fmt::format("{} \xc3\x97 {} weights", grouped(map.queries()), grouped(map.keys())));
    return;
  }
  const ColorScale scale = controls_.scale(map_.matrix(), map_.identity());
  if (identity_of_count_ != map_.identity()) {
    identity_of_count_ = map_.identity();
    broken_ = map_.matrix().nan_count() + map_.matrix().infinite_count() - map.masked_cells();
  }

  const auto inside = [&](int64_t row, int64_t col) {
    return row >= 0 && row < map.queries() && col >= 0 && col < map.keys();
  };
  const bool hovering = inside(selection.hover_token, selection.hover_key);
  const int64_t row = hovering ? selection.hover_token : selection.query_token,
                col = hovering ? selection.hover_key : selection.key;
  const bool any = inside(row, col);
  const Readout strip = readout(map, any ? row : -1, any ? col : -1, any && !hovering);
  const float strip_height = readout_height(pen, box.width(), strip);
  draw_readout(pen, box.take_bottom(std::min(strip_height, box.height() / 2)), strip);
  if (box.height() > pen.px(150)) {
    const int lines = box.height() > pen.px(420) ? 2 : 1;
    draw_tokens(pen, box.take_bottom(token_strip_height(pen, lines)), map, scale, any ? row : -1, any ? col : -1);
    box.take_bottom(pen.px(6));
  }
  const bool profile = box.height() > pen.px(340);
  const Box profile_box = profile ? box.take_bottom(pen.px(56)) : Box{};

  const std::string columns =
      map.by_chunk()
          ? fmt::format("key: chunk index (each = {}), last column = own running state", plural(map.chunk, "token"))
          : "key token";
  const MapAxes axes{columns,
                     "query token",
                     controls_.kind() == ScaleKind::linear ? "weight"
                     : controls_.kind() == ScaleKind::log  ? "weight, log"
                                                           : "weight, gamma",
                     map.by_chunk(),
                     0,
                     map.chunk};
  MapCursor cursor;
  if (hovering) cursor.hover_row = selection.hover_token, cursor.hover_col = selection.hover_key;
  if (inside(selection.query_token, selection.key))
    cursor.pinned_row = selection.query_token, cursor.pinned_col = selection.key;
  const MapResult result = map_.draw(pen, box, frame.textures, axes, scale, cursor);
  update_selection(selection, result);
  if (profile && !result.plot.empty())
    draw_profile(pen, profile_box, result, map, scale, any ? row : -1, any ? col : -1);
}

// The chosen query's weights over the same columns as the map above it.
void AttentionView::draw_profile(const Pen& pen, const Box& box, const MapResult& result, const AttentionMap& map,
                                 const ColorScale& scale, int64_t row, int64_t col) {
  const float line = pen.line_height();
  const Box plot{result.plot.x0, box.y0 + pen.px(10), result.plot.x1, box.y1 - pen.px(4)};
  pen.hairline(plot.x0, plot.y1, plot.x1, plot.y1);
  if (row < 0) {
    pen.text({(plot.x0 + plot.x1) / 2, (plot.y0 + plot.y1 - line) / 2}, pen.theme->secondary,
             "weights of the query under the mouse", Align::center);
    return;
  }
  const auto weights = map.tensor->row(map.head, row);
  float most = 0;
  for (const float w : weights)
    if (w > most) most = w;
  if (!(most > 0)) return;
  const auto columns = static_cast<int64_t>(weights.size()) - (map.by_chunk() ? 1 : 0);
  const double per_pixel = (result.window.x1 - result.window.x0) / plot.width();
  const auto bar = [&](float x0, float x1, float w, bool marked) {
    if (!(w > 0)) return;
    const Color color = marked ? pen.theme->text : color_at(scale.map, scale.position(w));
    pen.list->AddRectFilled({x0, plot.y1 - std::max(1.0f, w / most * plot.height())}, {x1, plot.y1}, to_imgui(color));
  };
  if (per_pixel >= 1) {
    for (int x = 0; x < static_cast<int>(plot.width()); ++x) {
      const auto begin = static_cast<int64_t>(result.window.x0 + x * per_pixel),
                 end = std::min(columns, static_cast<int64_t>(std::ceil(result.window.x0 + (x + 1) * per_pixel)));
      float w = 0;
      for (int64_t c = std::max<int64_t>(begin, 0); c < end; ++c)
        if (const float one = weights[static_cast<std::size_t>(c)]; one > w) w = one;
      bar(plot.x0 + static_cast<float>(x), plot.x0 + static_cast<float>(x) + 1, w, col >= begin && col < end);
    }
  } else {
    for (auto c = static_cast<int64_t>(result.window.x0);
         c < std::min(columns, static_cast<int64_t>(std::ceil(result.window.x1))); ++c) {
      const float x0 = plot.x0 + static_cast<float>((static_cast<double>(c) - result.window.x0) / per_pixel),
                  x1 = x0 + static_cast<float>(1 / per_pixel);
      bar(std::max(std::round(x0), plot.x0), std::min(std::round(x1) - (1 / per_pixel > 4 ? 1.0f : 0.0f), plot.x1),
          weights[static_cast<std::size_t>(c)], c == col);
    }
  }
  if (map.by_chunk()) bar(result.apart.x0, result.apart.x1, weights.back(), map.own_state(col));
  pen.text({plot.x0 - pen.px(6), plot.y0 - line / 2}, pen.theme->secondary, number(most), Align::right);
  pen.text({plot.x0 - pen.px(6), plot.y1 - line}, pen.theme->secondary, "0", Align::right);
}

void AttentionView::draw_tokens(const Pen& pen, const Box& box, const AttentionMap& map, const ColorScale& scale,
                                int64_t row, int64_t col) {
  if (row < 0) {
    pen.text({box.x0, box.y0 + pen.px(2)}, pen.theme->secondary,
             "Move over the map to read a cell. Click pins it, Esc clears; wheel zooms, drag pans.");
    return;
  }
  TokenStrip strip;
  strip.style = style_of(*map.trace);
  strip.map = scale.map;
  std::vector<float> shade;
  if (map.by_chunk()) {
    const auto [begin, end] = map.span(row, col);
    strip.label = map.own_state(col)
                      ? fmt::format("own state, tokens {}\xe2\x80\x93{}", grouped(begin), grouped(end - 1))
                      : fmt::format("chunk {}", grouped(col));
    shade = retention(*map.trace, map.layer_index, map.head, begin, end);
    const float most = shade.empty() ? 0 : *std::max_element(shade.begin(), shade.end());
    for (float& s : shade) s = most > 0 ? s / most : 0;
    strip.first_index = begin;
    strip.tokens =
        std::span(map.trace->tokens)
            .subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(std::max<int64_t>(end - begin, 0)));
  } else {
    const int64_t begin = std::clamp<int64_t>(col - context_tokens / 4, 0, map.keys()),
                  end = std::min(begin + context_tokens, std::min(map.keys(), row + 1));
    strip.label = fmt::format("keys from {}", grouped(begin));
    strip.first_index = begin, strip.marked = col;
    if (end > begin)
      strip.tokens =
          std::span(map.trace->tokens).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    for (int64_t k = begin; k < end; ++k) {
      const float w = map.weight(row, k);
      shade.push_back(std::isnan(w) ? -1.0f : scale.position(w));
    }
  }
  strip.shade = shade;
  draw_token_strip(pen, box, strip);
}

Readout AttentionView::readout(const AttentionMap& map, int64_t row, int64_t col, bool pinned) const {
  Readout out;
  out.pinned = pinned;
  out.badge = truth_badge(*map.trace);
  const TokenStyle bytes = style_of(*map.trace);
  const std::string index = std::string(grouped(std::max<int64_t>(map.queries() - 1, 10)).size(), '8');
  const std::string token = fmt::format(" {}", widest_token(map.trace->model.vocab, bytes));
  std::string query, context, key, span, weight, peak;
  if (row >= 0) {
    const std::span tokens(map.trace->tokens);
    query = fmt::format("{} {}", grouped(row), quoted_token(tokens[static_cast<std::size_t>(row)], bytes));
    context = tail_text(tokens.first(static_cast<std::size_t>(row)), bytes, 12);
    const float w = map.weight(row, col);
    weight = std::isnan(w) ? (col > row || map.by_chunk() ? "masked" : "not seen") : number(w);
    const auto [begin, end] = map.span(row, col);
    key = map.own_state(col) ? "own"
          : map.by_chunk()
              ? grouped(col)
              : fmt::format("{} {}", grouped(col), quoted_token(tokens[static_cast<std::size_t>(col)], bytes));
    span = map.by_chunk() ? fmt::format("{}\xe2\x80\x93{}", grouped(begin), grouped(end - 1))
                          : fmt::format("{} back", grouped(row - col));
    if (const auto shares = map.by_chunk() && !std::isnan(w)
                                ? retention(*map.trace, map.layer_index, map.head, begin, end)
                                : std::vector<float>{};
        !shares.empty()) {
      const auto at = std::max_element(shares.begin(), shares.end()) - shares.begin();
      peak = fmt::format("{} {} {}", grouped(begin + at),
                         quoted_token(tokens[static_cast<std::size_t>(begin + at)], bytes),
                         number(w * shares[static_cast<std::size_t>(at)]));
    }
  }
  out.fields = {
      {"query", query, index + token},
      {"after", context, "888888888888", true},
      {map.by_chunk() ? "chunk" : "key", key,
       map.by_chunk() ? index.substr(0, std::max<std::size_t>(3, grouped(map.keys()).size())) : index + token},
      {map.by_chunk() ? "tokens" : "distance", span,
       map.by_chunk() ? fmt::format("{0}\xe2\x80\x93{0}", index) : index + " back"},
      {"weight", weight, "0.00088"}};
  if (map.by_chunk() && map.trace->find(Probe::gate, map.layer_index))
    out.fields.push_back({"unfolded peak", peak, index + token + " 0.00088"});
  return out;
}

void AttentionView::draw(Frame& frame) {
  const Pen pen = Pen::of(frame);
  Box box = canvas_box(pen);
  if (box.empty() || !frame.selection) return;
  if (explain_no_attention(frame, pen, box)) return;
  const TraceSnapshot* trace = trace_or_explain(frame, pen, box);
  if (!trace) return;
  clamp_selection(*frame.selection, trace->model);
  if (box.height() > pen.px(250)) {
    overview_.draw(pen, box, std::min(box.height() * 0.24f, pen.px(170)), *trace, identity_of(frame), *frame.selection,
                   frame.textures);
  } else if (trace->model.layers.size() > 1 && box.height() > pen.px(150)) {
    frame.selection->layer = layer_chips(pen, box, trace->model, frame.selection->layer);
    box.take_top(pen.px(4));
  }
  if (frame.subject == Subject::stored && box.height() > pen.px(300)) draw_layer_dial(pen, box, frame);
  const std::optional<AttentionMap> map = find_map(*trace, *frame.selection);
  if (!map) {
    explain_missing(pen, box, *trace, *frame.selection);
    return;
  }
  if (box.height() > pen.px(120)) draw_title(pen, box, *map, subject_name(frame));
  draw_map(pen, box, frame, *map);
}

ProbeRequest AttentionView::probes(const Selection& selection, const ModelConfig& model) const {
  ProbeRequest request;
  if (model.layers.empty()) return request;
  const int layer = std::clamp(selection.layer, 0, static_cast<int>(model.layers.size()) - 1);
  const LayerConfig& config = model.layers[static_cast<std::size_t>(layer)];
  for (const LayerConfig& any : model.layers)
    if (has_probe(any, Probe::attention_overview)) {
      request.items.push_back({Probe::attention_overview, -1});
      request.items.push_back({Probe::attention_entropy, -1});
      break;
    }
  if (has_probe(config, Probe::attention)) request.items.push_back({Probe::attention, layer});
  if (config.kind == "rat" && has_probe(config, Probe::gate))
    request.items.push_back({Probe::gate, layer});  // for unfolding
  return request;
}

std::optional<Recipe> AttentionView::recipe(const Frame& frame) const {
  if (!frame.trace || !frame.selection || frame.trace->model.layers.empty()) return std::nullopt;
  Selection selection = *frame.selection;
  clamp_selection(selection, frame.trace->model);
  const auto map = find_map(*frame.trace, selection);
  if (!map) return std::nullopt;
  Recipe recipe;
  recipe.kind = FigureKind::attention;
  if (!frame.trace->run_id.empty()) recipe.runs = {frame.trace->run_id};
  recipe.probe = Probe::attention;
  recipe.layer = selection.layer, recipe.head = selection.head;
  copy_colors(controls_, false, recipe);
  if (const auto scale = controls_.shown(); scale) recipe.color_limits = {scale->low, scale->high};
  copy_window(map_, false, recipe);
  return recipe;
}

bool AttentionView::key_pressed(int key, bool ctrl, bool shift, Frame& frame) {
  return map_key_pressed(key, ctrl, shift, frame, controls_, map_);
}

}  // namespace

std::unique_ptr<View> make_attention_view() { return std::make_unique<AttentionView>(); }

}  // namespace rat::views
