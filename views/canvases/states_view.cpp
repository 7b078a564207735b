// What the recurrence holds: tokens along x, channels along y, chunk resets as lines; half-lives beside the channels.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "views/canvases/format.h"
#include "views/canvases/half_life_profile.h"
#include "views/canvases/map_controls.h"
#include "views/canvases/readout.h"
#include "views/canvases/token_text.h"
#include "views/canvases/view.h"

namespace rat::views {
namespace {

struct StateKind {
  Probe probe;
  std::string_view label, value_label;
  bool is_signed;
};
constexpr std::array<StateKind, 5> state_kinds{{{Probe::gate, "gate", "gate, 1 keeps", false},
                                                {Probe::state_k, "key state", "key state", true},
                                                {Probe::state_v, "value state", "value state", true},
                                                {Probe::out_gate, "output gate", "output gate", false},
                                                {Probe::residual, "residual", "residual", true}}};

class StatesView final : public View {
 public:
  void draw(Frame& frame) override;
  ProbeRequest probes(const Selection& selection, const ModelConfig& model) const override;
  std::optional<Recipe> recipe(const Frame& frame) const override;
  bool key_pressed(int key, bool ctrl, bool shift, Frame& frame) override;
  Options options() const override;
  void set_options(const Options& options) override;

 private:
  const StateKind& kind_for(const LayerConfig& layer) const;
  void draw_controls(const Pen& pen, Box& box, const Frame& frame, const TraceSnapshot& trace, const LayerConfig& layer,
                     const StateKind& kind);
  void update_half_lives(const Frame& frame, const LayerConfig& layer, int layer_index);
  void update_matrix(const Frame& frame, const ProbeTensor& tensor, int layer_index);
  void draw_map(const Pen& pen, Box box, Frame& frame, const ProbeTensor& tensor, const LayerConfig& layer,
                const StateKind& kind);
  void draw_tokens(const Pen& pen, const Box& box, const TraceSnapshot& trace, const LayerConfig& layer,
                   const ColorScale& scale, int64_t token, int64_t row) const;
  Readout readout(const TraceSnapshot& trace, const LayerConfig& layer, const StateKind& kind, int64_t token,
                  int64_t row, bool pinned) const;
  void update_selection(Selection& selection, const MapResult& result);
  int64_t row_of(int64_t channel) const;

  Probe wanted_ = Probe::gate;
  bool sorted_ = false;
  HeatMapWidget map_{"states"};
  MapControls controls_{ScaleKind::linear};
  std::string lives_identity_, matrix_identity_;
  HalfLives lives_;
  std::vector<int64_t> order_;
  bool owns_hover_ = false;
};

const StateKind& StatesView::kind_for(const LayerConfig& layer) const {
  for (const StateKind& kind : state_kinds)
    if (kind.probe == wanted_ && has_probe(layer, kind.probe)) return kind;
  return state_kinds.back();  // the residual stream: every layer has it
}

void StatesView::draw_controls(const Pen& pen, Box& box, const Frame& frame, const TraceSnapshot& trace,
                               const LayerConfig& layer, const StateKind& kind) {
  const float control = pen.px(small_control);
  std::vector<std::string_view> labels;
  std::vector<Probe> probes;
  int current = 0;
  for (const StateKind& one : state_kinds) {
    if (!has_probe(layer, one.probe)) continue;
    if (one.probe == kind.probe) current = static_cast<int>(labels.size());
    labels.push_back(one.label), probes.push_back(one.probe);
  }
  Box row = box.take_top(control);
  float x = row.x0;
  if (!labels.empty() && segmented_width(pen, labels) <= row.width()) {
    const int chosen = segmented(pen, "state kind", {x, row.y0}, labels, current, control);
    if (chosen != current) wanted_ = probes[static_cast<std::size_t>(chosen)];
    x += segmented_width(pen, labels) + pen.px(8);
  }
  const std::string_view sort = "by half-life";
  const auto new_line_unless = [&](float wide) {
    if (x == row.x0 || x + wide <= row.x1) return;
    box.take_top(pen.px(4));
    row = box.take_top(control);
    x = row.x0;
  };
  if (!lives_.tokens.empty()) {
    new_line_unless(small_button_width(pen, sort));
    if (small_button(pen, "sort", {x, row.y0}, sort, sorted_, control)) sorted_ = !sorted_;
    hint("Sort the channels by gate half-life, longest at the top (S)");
    x += small_button_width(pen, sort) + pen.px(16);
  }
  const float wide = controls_.width(pen, kind.is_signed);
  new_line_unless(wide);
  if (wide <= row.width()) controls_.draw(pen, row.x1, row.y0, control, map_, kind.is_signed);

  std::string note = subject_name(frame) + trace_caption(trace);
  if (layer.kind != "rat" && !has_probe(layer, Probe::gate))
    note = fmt::format("{} keeps no gate and no running state: the residual stream after the block \xc2\xb7 {}",
                       format_layer(layer), note);
  if (const std::string reduction = map_.reduction_note(); !reduction.empty()) note += " \xc2\xb7 " + reduction;
  if (kind.is_signed && controls_.clamped_at())
    note +=
        fmt::format(" \xc2\xb7 colours end at the 99.5th percentile, largest |x| {}", number(*controls_.clamped_at()));
  box.take_top(pen.px(4));
  if (const std::string summary = lives_.summary(); !summary.empty()) {
    box.take_top(pen.text_wrapped(box, pen.theme->text, summary));
  }
  box.take_top(pen.text_wrapped(box, pen.theme->secondary, note) + pen.px(4));
}

void StatesView::update_half_lives(const Frame& frame, const LayerConfig& layer, int layer_index) {
  const std::string identity =
      fmt::format("{}/{}/{}", static_cast<const void*>(frame.trace.get()), frame.trace->serial, layer_index);
  if (identity == lives_identity_) return;
  lives_identity_ = identity;
  lives_ = {};
  const int64_t chunk = chunk_length(layer, frame.trace->token_count());
  lives_.chunked = chunk > 0;
  lives_.reach = chunk > 0 ? chunk : frame.trace->token_count();
  if (const ProbeTensor* gate = frame.trace->find(Probe::gate, layer_index);
      gate && gate->shape.size() == 2 && !gate->values.empty())
    lives_.tokens = channel_half_lives(*gate);
}

void StatesView::update_matrix(const Frame& frame, const ProbeTensor& tensor, int layer_index) {
  const int64_t tokens = tensor.shape[0], channels = tensor.shape[1];
  const bool sorted = sorted_ && static_cast<int64_t>(lives_.tokens.size()) == channels;
  matrix_identity_ = fmt::format("{}/{}/{}/{}/{}", static_cast<const void*>(frame.trace.get()), frame.trace->serial,
                                 layer_index, static_cast<int>(tensor.probe), sorted);
  map_.set_matrix(matrix_identity_, [&] {
    order_ = channel_order(lives_, channels, sorted);
    // Channels as rows: transposed in blocks, so that both sides stay in the cache.
    auto values = std::make_shared<std::vector<float>>(static_cast<std::size_t>(tokens * channels));
    constexpr int64_t block = 32;
    for (int64_t r0 = 0; r0 < channels; r0 += block)
      for (int64_t t = 0; t < tokens; ++t) {
        const float* from = tensor.values.data() + t * channels;
        for (int64_t r = r0; r < std::min(r0 + block, channels); ++r)
          (*values)[static_cast<std::size_t>(r * tokens + t)] = from[order_[static_cast<std::size_t>(r)]];
      }
    const float* data = values->data();
    return MatrixPyramid(std::move(values), data, channels, tokens, tokens, CellKind::signed_);
  });
}

int64_t StatesView::row_of(int64_t channel) const {
  const auto at = std::find(order_.begin(), order_.end(), channel);
  return at == order_.end() ? -1 : at - order_.begin();
}

void StatesView::update_selection(Selection& selection, const MapResult& result) {
  const auto channel = [&](int64_t row) { return order_[static_cast<std::size_t>(row)]; };
  if (result.hovered) {
    selection.hover_token = result.col, selection.hover_channel = channel(result.row);
    owns_hover_ = true;
  } else if (owns_hover_) {
    selection.hover_token = selection.hover_channel = -1;
    owns_hover_ = false;
  }
  if (result.clicked && result.hovered) selection.query_token = result.col, selection.channel = channel(result.row);
}

void StatesView::draw_map(const Pen& pen, Box box, Frame& frame, const ProbeTensor& tensor, const LayerConfig& layer,
                          const StateKind& kind) {
  const TraceSnapshot& trace = *frame.trace;
  Selection& selection = *frame.selection;
  ColorScale scale = controls_.scale(map_.matrix(), matrix_identity_);
  if (!kind.is_signed && !controls_.locked() && scale.kind != ScaleKind::log)
    scale.low = 0, scale.high = 1;  // gates: the whole range

  const int64_t tokens = tensor.shape[0];
  const auto inside = [&](int64_t token, int64_t row) { return token >= 0 && token < tokens && row >= 0; };
  const int64_t hover_row = row_of(selection.hover_channel), pinned_row = row_of(selection.channel);
  const bool hovering = inside(selection.hover_token, hover_row), pinned = inside(selection.query_token, pinned_row);
  const int64_t token = hovering ? selection.hover_token
                        : pinned ? selection.query_token
                                 : -1,
                row = hovering ? hover_row
                      : pinned ? pinned_row
                               : -1;

  const Readout strip = readout(trace, layer, kind, token, row, pinned && !hovering);
  const float strip_height = readout_height(pen, box.width(), strip);
  draw_readout(pen, box.take_bottom(std::min(strip_height, box.height() / 2)), strip);
  if (box.height() > pen.px(150)) {
    draw_tokens(pen, box.take_bottom(token_strip_height(pen, box.height() > pen.px(420) ? 2 : 1)), trace, layer, scale,
                token, row);
    box.take_bottom(pen.px(6));
  }
  const bool profile = !lives_.tokens.empty() && box.width() > pen.px(560);
  const Box profile_box = profile ? box.take_right(std::clamp(box.width() * 0.2f, pen.px(130), pen.px(240))) : Box{};
  if (profile) box.take_right(pen.px(8));
  if (profile) box.take_top(pen.px(8));

  const bool sorted = sorted_ && static_cast<int64_t>(lives_.tokens.size()) == tensor.shape[1];
  const int64_t chunk = chunk_length(layer, tokens);
  const MapAxes axes{chunk > 0 ? fmt::format("token, lines every L = {}", grouped(chunk)) : "token",
                     sorted ? "channel rank, longest half-life first" : "channel, lines between heads",
                     std::string(kind.value_label),
                     false,
                     chunk,
                     sorted ? 0 : tensor.shape[1] / std::max<int64_t>(trace.model.heads, 1)};
  MapCursor cursor;
  if (hovering) cursor.hover_row = hover_row, cursor.hover_col = selection.hover_token;
  if (pinned) cursor.pinned_row = pinned_row, cursor.pinned_col = selection.query_token;
  const MapResult result = map_.draw(pen, box, frame.textures, axes, scale, cursor);
  update_selection(selection, result);
  if (profile && !result.plot.empty()) draw_half_life_profile(pen, profile_box, result, lives_, order_, row);
}

void StatesView::draw_tokens(const Pen& pen, const Box& box, const TraceSnapshot& trace, const LayerConfig& layer,
                             const ColorScale& scale, int64_t token, int64_t row) const {
  if (token < 0) {
    pen.text({box.x0, box.y0 + pen.px(2)}, pen.theme->secondary,
             "Move over the map to read a cell. Click pins it, Esc clears; wheel zooms, drag pans.");
    return;
  }
  const int64_t chunk = chunk_length(layer, trace.token_count());
  const int64_t begin = chunk > 0 ? token / chunk * chunk : std::max<int64_t>(0, token - 64);
  const int64_t end = std::min(trace.token_count(), chunk > 0 ? begin + chunk : begin + 256);
  std::vector<float> shade;
  for (int64_t t = begin; t < end; ++t) {
    const float value = map_.matrix().at(row, t);
    shade.push_back(std::isnan(value) ? -1.0f : scale.position(value));
  }
  TokenStrip strip;
  strip.label = chunk > 0 ? fmt::format("chunk {}", grouped(token / chunk)) : fmt::format("from {}", grouped(begin));
  strip.tokens =
      std::span(trace.tokens).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  strip.shade = shade;
  strip.style = style_of(trace);
  strip.first_index = begin, strip.marked = token;
  strip.map = scale.map;
  draw_token_strip(pen, box, strip);
}

Readout StatesView::readout(const TraceSnapshot& trace, const LayerConfig& layer, const StateKind& kind, int64_t token,
                            int64_t row, bool pinned) const {
  Readout out;
  out.pinned = pinned;
  out.badge = truth_badge(trace);
  const std::string index = std::string(grouped(std::max<int64_t>(trace.token_count(), 10)).size(), '8');
  const int64_t chunk = chunk_length(layer, trace.token_count());
  std::string text, position, channel, value, life;
  if (token >= 0) {
    const int64_t c = order_[static_cast<std::size_t>(row)], per_head = std::max<int64_t>(trace.model.head_size(), 1);
    text = fmt::format("{} {}", grouped(token),
                       quoted_token(trace.tokens[static_cast<std::size_t>(token)], style_of(trace)));
    if (chunk > 0)
      position =
          fmt::format("{} of {}", token % chunk + 1, std::min(chunk, trace.token_count() - token / chunk * chunk));
    channel = fmt::format("{} (head {})", c, c / per_head);
    value = number(map_.matrix().at(row, token));
    if (c < static_cast<int64_t>(lives_.tokens.size()))
      life = half_life_text(lives_.tokens[static_cast<std::size_t>(c)]);
  }
  out.fields = {{"token", text, index + " " + widest_token(trace.model.vocab, style_of(trace))}};
  if (chunk > 0)
    out.fields.push_back({"in chunk", position, fmt::format("{0} of {0}", std::string(grouped(chunk).size(), '8'))});
  out.fields.push_back({"channel", channel, "8888 (head 88)"});
  out.fields.push_back({std::string(kind.label), value, "-0.00088"});
  if (!lives_.tokens.empty()) out.fields.push_back({"half-life", life, "never halves"});
  return out;
}

void StatesView::draw(Frame& frame) {
  const Pen pen = Pen::of(frame);
  Box box = canvas_box(pen);
  if (box.empty() || !frame.selection) return;
  const TraceSnapshot* trace = trace_or_explain(frame, pen, box);
  if (!trace) return;
  Selection& selection = *frame.selection;
  clamp_selection(selection, trace->model);
  if (box.height() > pen.px(150)) {
    selection.layer = layer_chips(pen, box, trace->model, selection.layer);
    box.take_top(pen.px(6));
  }
  const LayerConfig& layer = trace->model.layers[static_cast<std::size_t>(selection.layer)];
  const StateKind& kind = kind_for(layer);
  update_half_lives(frame, layer, selection.layer);
  const ProbeTensor* tensor = trace->find(kind.probe, selection.layer);
  const bool usable = tensor && tensor->shape.size() == 2 && tensor->shape[0] > 0 &&
                      tensor->shape[0] <= trace->token_count() && tensor->shape[1] > 0;
  if (usable) update_matrix(frame, *tensor, selection.layer);
  if (box.height() > pen.px(110)) draw_controls(pen, box, frame, *trace, layer, kind);
  if (!usable) {
    empty_state(pen, box,
                fmt::format("Recording the {} of layer {} ({})...", kind.label, selection.layer, format_layer(layer)),
                "It appears with the next recorded step.");
    return;
  }
  draw_map(pen, box, frame, *tensor, layer, kind);
}

ProbeRequest StatesView::probes(const Selection& selection, const ModelConfig& model) const {
  ProbeRequest request;
  if (model.layers.empty()) return request;
  const int layer = std::clamp(selection.layer, 0, static_cast<int>(model.layers.size()) - 1);
  const LayerConfig& config = model.layers[static_cast<std::size_t>(layer)];
  request.items.push_back({kind_for(config).probe, layer});
  if (request.items[0].probe != Probe::gate && has_probe(config, Probe::gate))
    request.items.push_back({Probe::gate, layer});
  return request;
}

std::optional<Recipe> StatesView::recipe(const Frame& frame) const {
  if (!frame.trace || !frame.selection || frame.trace->model.layers.empty()) return std::nullopt;
  Selection selection = *frame.selection;
  clamp_selection(selection, frame.trace->model);
  const StateKind& kind = kind_for(frame.trace->model.layers[static_cast<std::size_t>(selection.layer)]);
  if (!frame.trace->find(kind.probe, selection.layer)) return std::nullopt;
  Recipe recipe;
  recipe.kind = FigureKind::states;
  if (!frame.trace->run_id.empty()) recipe.runs = {frame.trace->run_id};
  recipe.probe = kind.probe;
  recipe.layer = selection.layer, recipe.head = selection.head;
  recipe.sort_channels = sorted_ && !lives_.tokens.empty();
  copy_colors(controls_, kind.is_signed, recipe);
  if (const auto scale = controls_.shown(); scale)
    recipe.color_limits = kind.is_signed || controls_.locked() || recipe.log_color ? std::pair(scale->low, scale->high)
                                                                                   : std::pair(0.0f, 1.0f);
  copy_window(map_, true, recipe);
  return recipe;
}

Options StatesView::options() const {
  Options options;
  controls_.save(options);
  options["values"] = probe_name(wanted_);
  options["sorted"] = sorted_ ? "yes" : "no";
  return options;
}

void StatesView::set_options(const Options& options) {
  controls_.load(options);
  for (const StateKind& kind : state_kinds)
    if (const auto at = options.find("values"); at != options.end() && at->second == probe_name(kind.probe))
      wanted_ = kind.probe;
  if (const auto at = options.find("sorted"); at != options.end()) sorted_ = at->second == "yes";
}

bool StatesView::key_pressed(int key, bool ctrl, bool shift, Frame& frame) {
  if (frame.selection && !ctrl && key == 'S') {
    sorted_ = !sorted_;
    return true;
  }
  return map_key_pressed(key, ctrl, shift, frame, controls_, map_);
}

}  // namespace

std::unique_ptr<View> make_states_view() { return std::make_unique<StatesView>(); }

}  // namespace rat::views
