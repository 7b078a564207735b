// Prompt in, tokens out. Probabilities of the next token, the cache it costs, and the states that follow it.
#include <fmt/format.h>
#include <imgui.h>
#include <imgui_stdlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "kernels/base/cache_dtype.h"
#include "kernels/base/device_names.h"
#include "kernels/base/dtype.h"
#include "views/canvases/format.h"
#include "views/canvases/generation_text.h"
#include "views/canvases/layer_dial.h"
#include "views/canvases/live_strip.h"
#include "views/canvases/map_controls.h"
#include "views/canvases/token_text.h"

namespace rat::views {
namespace {

constexpr std::size_t shown_candidates = 12;
constexpr int most_samples = 65535;
constexpr const char* as_computed = "auto";  // the cache
constexpr const char* example_prompt = "#include <vector>\n\n// Returns the sum of all values.\n";

class GenerateView final : public View {
 public:
  void draw(Frame& frame) override;
  ProbeRequest probes(const Selection& selection, const ModelConfig& model) const override {
    return strip_.probes(selection, model);
  }
  std::optional<Recipe> recipe(const Frame& frame) const override { return strip_.recipe(frame); }
  bool key_pressed(int key, bool ctrl, bool shift, Frame& frame) override;
  Options options() const override;
  void set_options(const Options& options) override;

 private:
  void draw_editor(const Pen& pen, Box box, Frame& frame);
  void draw_parameters(const Pen& pen, Box& box, const Frame& frame);
  void choose(const char* id, const char* about, std::string& chosen, std::vector<std::string> offered) const;
  static std::vector<std::string> device_names(const Frame& frame);
  std::vector<std::string> dtypes(const Frame& frame) const;
  void draw_sample_choice(const Pen& pen, const Box& box, float& x, float& y, const Frame& frame) const;
  void draw_buttons(const Pen& pen, Box& box, Frame& frame);
  void draw_candidates(const Pen& pen, Box& box, const GenerationStatus& generation, const TokenStyle& style) const;
  void draw_facts(const Pen& pen, Box& box, const GenerationStatus& generation) const;
  void start(Frame& frame, int64_t count);
  static bool has_model(const Frame& frame);
  static bool show_sample(const Frame& frame, int64_t sample);
  static TokenStyle style(const Frame& frame) {
    if (frame.generation && frame.generation->tokenizer) return frame.generation->tokenizer;
    return !frame.trace || frame.trace->tokens.empty() ? TokenStyle(true) : style_of(*frame.trace);
  }

  std::string prompt_ = example_prompt;
  int count_ = 200, samples_ = 1, top_k_ = 0, seed_ = 1;
  float temperature_ = 0.8f;
  std::string dtype_ = "f32", device_ = "cpu", cache_ = as_computed;
  GenerationText text_;
  LiveStrip strip_;
};

bool GenerateView::has_model(const Frame& frame) {
  return (frame.inspect && !frame.inspect->run_id.empty()) || (frame.training && !frame.training->run_id.empty()) ||
         (frame.stored_run && !frame.stored_run->id.empty());
}

void GenerateView::start(Frame& frame, int64_t count) {
  GenerationConfig config;
  config.sampling.temperature = temperature_;
  config.sampling.top_k = top_k_;
  config.sampling.seed = static_cast<uint64_t>(seed_);
  config.samples = samples_;
  config.dtype = dtype_;
  config.device = device_;
  if (device_ != "cpu" && cache_ != as_computed) config.cache = *kernels::parse_cache_dtype(cache_);
  if (frame.commands && frame.commands->generate) frame.commands->generate(prompt_, count, config);
}

// Asks for another sample; returns whether there is one to ask for.
bool GenerateView::show_sample(const Frame& frame, int64_t sample) {
  const bool there = frame.generation && sample >= 0 && sample < frame.generation->samples;
  if (there && frame.commands && frame.commands->show_sample) frame.commands->show_sample(sample);
  return there;
}

// A list of what is offered, and the chosen one, whatever machine it was chosen on.
void GenerateView::choose(const char* id, const char* about, std::string& chosen,
                          std::vector<std::string> offered) const {
  const bool narrow = ImGui::CalcItemWidth() < 3 * ImGui::GetFrameHeight();
  const bool open =
      ImGui::BeginCombo(id, chosen.c_str(), narrow ? ImGuiComboFlags_NoArrowButton : ImGuiComboFlags_None);
  if (!open) hint(about);
  if (!open) return;
  if (std::find(offered.begin(), offered.end(), chosen) == offered.end()) offered.push_back(chosen);
  for (const std::string& one : offered)
    if (ImGui::Selectable(one.c_str(), one == chosen)) chosen = one;
  ImGui::EndCombo();
}

std::vector<std::string> GenerateView::device_names(const Frame& frame) {
  std::vector<std::string> names;
  if (frame.inspect)
    for (const Device& device : frame.inspect->devices) names.push_back(device.name);
  return names;
}

std::vector<std::string> GenerateView::dtypes(const Frame& frame) const {
  if (frame.inspect)
    for (const Device& device : frame.inspect->devices)
      if (device.name == device_) return device.dtypes;
  return kernels::dtype_names();
}

// Label above its field; as many in a row as fit.
void GenerateView::draw_parameters(const Pen& pen, Box& box, const Frame& frame) {
  const std::vector<std::string> devices = device_names(frame);
  const bool has_choice = devices.size() > 1 || device_ != "cpu", has_cache = device_ != "cpu";
  const int fields = 6 + (has_choice ? 1 : 0) + (has_cache ? 1 : 0);
  const float gap = pen.px(8),
              wanted = (box.width() - gap * static_cast<float>(fields - 1)) / static_cast<float>(fields),
              field = std::clamp(wanted, pen.px(58), pen.px(84)),
              height = pen.line_height() + pen.px(2) + pen.px(control_height) + pen.px(6);
  const int in_row = std::max(1, static_cast<int>((box.width() + gap) / (field + gap)));
  const int rows = (fields + in_row - 1) / in_row;
  const auto place = [&](int i, std::string_view label) {
    const float x = box.x0 + static_cast<float>(i % in_row) * (field + gap),
                y = box.y0 + static_cast<float>(i / in_row) * height;
    pen.text({x, y}, pen.theme->secondary, label);
    ImGui::SetCursorScreenPos({x, y + pen.line_height() + pen.px(2)});
    ImGui::SetNextItemWidth(std::min(field, std::max(box.width(), 1.0f)));
  };
  place(0, "Tokens");
  if (ImGui::InputInt("##count", &count_, 0)) count_ = std::clamp(count_, 1, 1 << 20);
  place(1, "Samples");
  if (ImGui::InputInt("##samples", &samples_, 0)) samples_ = std::clamp(samples_, 1, most_samples);
  hint("Continuations of the prompt, drawn at once, each with a seed of its own");
  place(2, pen.width("Temperature") <= field ? "Temperature" : "Temp.");
  if (ImGui::InputFloat("##temperature", &temperature_, 0, 0, "%.2f"))
    temperature_ = std::isfinite(temperature_) ? std::clamp(temperature_, 0.0f, 10.0f) : 0.8f;
  hint("Temperature; 0: always the most likely token");
  place(3, "Top k");
  if (ImGui::InputInt("##top k", &top_k_, 0)) top_k_ = std::max(top_k_, 0);
  hint("0: all tokens");
  place(4, "Seed");
  if (ImGui::InputInt("##seed", &seed_, 0)) seed_ = std::max(seed_, 0);
  hint("Of the first sample; the others have the next numbers");
  place(5, "Dtype");
  choose("##dtype", "Precision of matrix products", dtype_, dtypes(frame));
  if (has_choice) {
    place(6, "Device");
    choose("##device", "Where it generates", device_, devices);
  }
  if (has_cache) {
    place(7, "Cache");
    choose("##cache",
           "Precision of keys and values; auto: as the layers compute; fp8: of rat, ratplus, attention and swa in bf16", cache_,
           {as_computed, "fp8"});
  }
  box.take_top(static_cast<float>(rows) * height);
}

void GenerateView::draw_buttons(const Pen& pen, Box& box, Frame& frame) {
  const bool ready = has_model(frame) && !prompt_.empty();
  const bool running = frame.generation && frame.generation->running;
  const bool begun = frame.generation && !frame.generation->tokens.empty();
  const float height = pen.px(control_height);
  float x = box.x0, y = box.y0;
  const auto button = [&](const char* id, std::string_view label, bool primary, bool enabled) {
    const float wide = small_button_width(pen, label) + pen.px(8);
    if (x > box.x0 && x + wide > box.x1) x = box.x0, y += height + pen.px(4);
    const Box at{x, y, x + wide, y + height};
    ImGui::SetCursorScreenPos(at.min());
    const bool clicked = ImGui::InvisibleButton(id, {wide, height}) && enabled;
    const bool hovered = ImGui::IsItemHovered() && enabled;
    const Color face = primary && enabled ? mix(pen.theme->accent, pen.theme->text, hovered ? 0.12f : 0)
                       : hovered          ? pen.theme->hairline
                                          : pen.theme->raised;
    pen.fill(at, face, 1, pen.px(4));
    if (!(primary && enabled)) pen.outline(at, pen.theme->hairline, 1, pen.px(4));
    const Color ink = !enabled  ? mix(pen.theme->pane, pen.theme->secondary, 0.6f)
                      : primary ? readable_on(face)
                                : pen.theme->text;
    pen.text({(at.x0 + at.x1) / 2, at.y0 + (height - pen.line_height()) / 2}, ink, label, Align::center);
    x += wide + pen.px(8);
    return clicked;
  };
  if (running) {
    if (button("stop", "Stop", true, true) && frame.commands && frame.commands->stop_generation)
      frame.commands->stop_generation();
  } else if (button("generate", "Generate", true, ready)) {
    start(frame, count_);
  }
  hint("Start over from the prompt (Ctrl+Enter)");
  if (button("step", "Step 1", false, ready && !running)) {
    if (!begun)
      start(frame, 1);
    else if (frame.commands && frame.commands->generate_more)
      frame.commands->generate_more(1);
  }
  hint("One token; the strip below follows");
  if (button("more", "Continue", false, ready && begun && !running) && frame.commands && frame.commands->generate_more)
    frame.commands->generate_more(count_);
  hint("Go on from where it stopped");
  if (button("copy", "Copy", false, begun)) ImGui::SetClipboardText(text_.text().c_str());
  hint("All of it; a part: drag over the text below, then Ctrl+C (double click: a word, Ctrl+A: everything)");
  if (begun && frame.generation->samples > 1) draw_sample_choice(pen, box, x, y, frame);
  box.take_top(y + height - box.y0 + pen.px(8));
}

void GenerateView::draw_editor(const Pen& pen, Box box, Frame& frame) {
  pen.heading(box.min(), "Prompt");
  box.take_top(pen.caps->FontSize + pen.px(4));
  const Box field = box.take_top(std::clamp(box.height() * 0.2f, pen.px(52), pen.px(120)));
  ImGui::SetCursorScreenPos(field.min());
  ImGui::PushFont(pen.mono);
  ImGui::InputTextMultiline("##prompt", &prompt_, {std::max(field.width(), 1.0f), std::max(field.height(), 1.0f)});
  ImGui::PopFont();
  if (ImGui::IsItemActive() && ImGui::GetIO().KeyCtrl &&
      ImGui::IsKeyPressed(ImGui::GetKeyIndex(ImGuiKey_Enter), false) && has_model(frame))
    start(frame, count_);
  pen.outline(field, ImGui::IsItemActive() ? pen.theme->accent : pen.theme->hairline, 1, pen.px(4));
  box.take_top(pen.px(8));
  draw_parameters(pen, box, frame);
  draw_layer_dial(pen, box, frame);
  draw_buttons(pen, box, frame);
  if (!has_model(frame)) {
    box.take_top(
        pen.text_wrapped(box, pen.theme->secondary, "No model yet. Press Start, or open a run in the table below.") +
        pen.px(8));
  }
  const auto& generation = frame.generation;
  if (generation) message_line(pen, box, generation->message, generation->message_is_error);
  if (generation && !generation->tokens.empty()) {
    text_.draw(pen, box, *generation, style(frame));
  } else if (has_model(frame)) {
    pen.fill(box, pen.theme->background, 1, pen.px(4));
    empty_state(pen, box, "Nothing generated yet.", "Generate streams tokens; Step 1 makes one at a time.");
  }
}

// Behind the buttons where there is room, in words where there is more.
void GenerateView::draw_sample_choice(const Pen& pen, const Box& box, float& x, float& y, const Frame& frame) const {
  const GenerationStatus& generation = *frame.generation;
  const float height = pen.px(control_height), gap = pen.px(4);
  const std::string shortest = fmt::format("{} of {}", grouped(generation.sample + 1), grouped(generation.samples)),
                    whole = fmt::format("Sample {}, seed {}", shortest, generation.seed);
  const float steps = small_button_width(pen, "<") + small_button_width(pen, ">") + 2 * gap;
  if (x + steps + pen.width(shortest) > box.x1) x = box.x0, y += height + gap;
  const auto step = [&](const char* id, std::string_view label, int64_t to) {
    const bool possible = to >= 0 && to < generation.samples;
    if (small_button(pen, id, {x, y}, label, false, height, possible)) show_sample(frame, to);
    x += small_button_width(pen, label) + gap;
  };
  step("previous sample", "<", generation.sample - 1);
  hint("The sample before (Page Up)");
  step("next sample", ">", generation.sample + 1);
  hint("The next sample (Page Down)");
  const std::string& name = x + pen.width(whole) <= box.x1 ? whole : shortest;
  if (x < box.x1) pen.text_fitted({x, y + (height - pen.line_height()) / 2}, pen.theme->text, name, box.x1 - x);
}

void GenerateView::draw_candidates(const Pen& pen, Box& box, const GenerationStatus& generation,
                                   const TokenStyle& style) const {
  pen.heading(box.min(), "Next token");
  box.take_top(pen.caps->FontSize + pen.px(6));
  const std::vector<float>& p = generation.next_probabilities;
  const float height = pen.px(20);
  if (p.empty()) {
    box.take_top(pen.text_wrapped(box, pen.theme->secondary, "Probabilities appear with the first token.") + pen.px(8));
    return;
  }
  std::vector<int32_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  const std::size_t count = std::min(shown_candidates, order.size());
  const auto greater = [&](int32_t a, int32_t b) {
    const float x = p[static_cast<std::size_t>(a)], y = p[static_cast<std::size_t>(b)];
    return (std::isnan(x) ? -1 : x) > (std::isnan(y) ? -1 : y);
  };
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(), greater);
  const float most = std::max(p[static_cast<std::size_t>(order[0])], 1e-6f),
              names = pen.width("\\xe2", pen.mono) + pen.px(14), numbers = pen.width("100.0 %") + pen.px(8);
  double rest = 1;
  for (std::size_t i = 0; i < count; ++i) {
    const float one = p[static_cast<std::size_t>(order[i])];
    rest -= one;
    const Box at = box.take_top(height);
    if (at.height() < height) return;
    const float y = at.y0 + (height - pen.line_height()) / 2;
    pen.text({at.x0, y}, pen.theme->text, token_text(order[i], style), Align::left, pen.mono);
    const Box track{at.x0 + names, at.y0 + pen.px(4), std::max(at.x1 - numbers, at.x0 + names), at.y1 - pen.px(4)};
    pen.fill(track, pen.theme->raised, 1, pen.px(2));
    pen.fill({track.x0, track.y0, track.x0 + std::clamp(one / most, 0.0f, 1.0f) * track.width(), track.y1},
             pen.theme->accent, 1, pen.px(2));
    pen.text({at.x1, y}, pen.theme->secondary, percent(one), Align::right);
  }
  const Box at = box.take_top(height);
  if (at.height() < height || p.size() <= count) return;
  pen.text({at.x0, at.y0 + pen.px(2)}, pen.theme->secondary,
           fmt::format("{} others", grouped(static_cast<int64_t>(p.size() - count))));
  pen.text({at.x1, at.y0 + pen.px(2)}, pen.theme->secondary, percent(std::max(rest, 0.0)), Align::right);
}

void GenerateView::draw_facts(const Pen& pen, Box& box, const GenerationStatus& generation) const {
  const bool begun = !generation.tokens.empty();
  pen.heading(box.min(), fmt::format("Decode, batch {}, {}, {}", begun ? generation.samples : samples_,
                                     begun ? generation.dtype : dtype_, begun ? generation.device : device_));
  box.take_top(pen.caps->FontSize + pen.px(6));
  const auto fact = [&](std::string_view name, std::string value) {
    const float height = pen.px(24);
    const Box at = box.take_top(height);
    if (at.height() < height) return;
    const float y = at.y0 + (height - pen.line_height()) / 2;
    pen.text({at.x0, y}, pen.theme->secondary, name);
    pen.text({at.x1, y}, pen.theme->text, value, Align::right);
    pen.hairline(at.x0, at.y1 - 1, at.x1, at.y1 - 1);
  };
  const auto rate = [](double x) { return x > 0 ? si(x, "tok/s") : std::string("\xe2\x80\x93"); };
  const bool any = generation.position > 0;
  fact("position", any ? fmt::format("{} tokens", grouped(generation.position)) : "\xe2\x80\x93");
  fact("cache",
       any ? fmt::format("{}, {}", bytes_text(static_cast<double>(generation.cache_bytes)), generation.cache_dtype)
           : "\xe2\x80\x93");
  fact("prefill", generation.prefill_ms > 0 ? milliseconds(generation.prefill_ms) : "\xe2\x80\x93");
  fact("prefill speed", rate(generation.prefill_tokens_per_s));
  fact("decode speed", rate(generation.decode_tokens_per_s));
}

void GenerateView::draw(Frame& frame) {
  const Pen pen = Pen::of(frame);
  Box box = canvas_box(pen);
  if (box.empty()) return;
  if (frame.inspect) message_line(pen, box, frame.inspect->message, frame.inspect->message_is_error);
  static const GenerationStatus nothing;
  const GenerationStatus& generation = frame.generation ? *frame.generation : nothing;
  const bool has_strip = frame.trace && frame.trace->token_count() > 0 && frame.selection && box.height() > pen.px(430);
  const Box strip_box = has_strip ? box.take_bottom(std::clamp(box.height() * 0.34f, pen.px(170), pen.px(360))) : Box{};
  if (has_strip) box.take_bottom(pen.px(12));
  if (box.width() > pen.px(560)) {
    Box side = box.take_right(std::clamp(box.width() * 0.28f, pen.px(220), pen.px(320)));
    box.take_right(pen.px(24));
    const bool facts_first = side.height() < pen.px(430);
    if (facts_first) {  // the numbers always fit; the bars take what is left
      draw_facts(pen, side, generation);
      side.take_top(pen.px(14));
    }
    draw_candidates(pen, side, generation, style(frame));
    side.take_top(pen.px(14));
    if (!facts_first) draw_facts(pen, side, generation);
  }
  draw_editor(pen, box, frame);
  if (has_strip) strip_.draw(pen, strip_box, frame);
}

Options GenerateView::options() const {
  return {{"prompt", prompt_},
          {"tokens", std::to_string(count_)},
          {"samples", std::to_string(samples_)},
          {"dtype", dtype_},
          {"device", device_},
          {"cache", cache_},
          {"temperature", fmt::format("{}", temperature_)},
          {"top_k", std::to_string(top_k_)},
          {"seed", std::to_string(seed_)}};
}

void GenerateView::set_options(const Options& options) {
  const auto whole = [&](const char* key, int& value, int low, int high) {
    const auto at = options.find(key);
    if (at == options.end()) return;
    char* end = nullptr;
    const long read = std::strtol(at->second.c_str(), &end, 10);
    if (end != at->second.c_str() && *end == 0 && read >= low && read <= high) value = static_cast<int>(read);
  };
  whole("tokens", count_, 1, 1 << 20);
  whole("samples", samples_, 1, most_samples);
  whole("top_k", top_k_, 0, 1 << 20);
  whole("seed", seed_, 0, std::numeric_limits<int>::max());
  if (const auto at = options.find("temperature"); at != options.end()) {
    const float read = std::strtof(at->second.c_str(), nullptr);
    if (std::isfinite(read) && read >= 0 && read <= 10) temperature_ = read;
  }
  const auto one_of = [&](const char* key, std::string& value, const std::vector<std::string>& known) {
    const auto at = options.find(key);
    if (at != options.end() && std::find(known.begin(), known.end(), at->second) != known.end()) value = at->second;
  };
  one_of("dtype", dtype_, kernels::dtype_names());
  one_of("device", device_, kernels::device_names());
  one_of("cache", cache_, {as_computed, "fp8"});
  if (const auto at = options.find("prompt"); at != options.end() && !at->second.empty()) prompt_ = at->second;
}

bool GenerateView::key_pressed(int key, bool ctrl, bool shift, Frame& frame) {
  (void)shift;
  if (ctrl && (key == ImGuiKey_C || key == 'C')) {
    const std::string chosen = text_.selected();
    if (!chosen.empty()) ImGui::SetClipboardText(chosen.c_str());
    return !chosen.empty();
  }
  if (ctrl && (key == ImGuiKey_A || key == 'A') && frame.generation && !frame.generation->tokens.empty()) {
    text_.select_all();
    return true;
  }
  if (ctrl && key == ImGuiKey_Enter && has_model(frame)) {
    start(frame, count_);
    return true;
  }
  if (ctrl) return false;
  if ((key == ImGuiKey_PageUp || key == ImGuiKey_PageDown) && frame.generation)
    return show_sample(frame, frame.generation->sample + (key == ImGuiKey_PageDown ? 1 : -1));
  if (key == ImGuiKey_Escape && frame.generation && frame.generation->running) {
    if (frame.commands && frame.commands->stop_generation) frame.commands->stop_generation();
    return true;
  }
  return move_layer_or_head(key, frame);
}

}  // namespace

std::unique_ptr<View> make_generate_view() { return std::make_unique<GenerateView>(); }

}  // namespace rat::views
