#include "views/canvases/generation_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "views/canvases/token_text.h"

namespace rat::views {
namespace {

bool continues_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

}  // namespace

void GenerationText::wrap(const GenerationStatus& generation, const TokenStyle& style, int columns) {
  const std::span tokens(generation.tokens);
  const auto prompt =
      static_cast<std::size_t>(std::clamp<int64_t>(generation.prompt_tokens, 0, static_cast<int64_t>(tokens.size())));
  const std::string before = std::move(text_);
  text_ = running_text(tokens.first(prompt), style);
  if (style.numbers() && prompt > 0 && prompt < tokens.size()) text_ += ' ';
  const std::size_t boundary = text_.size();
  text_ += running_text(tokens.subspan(prompt), style);
  if (!text_.starts_with(before)) from_ = to_ = 0;

  lines_.clear();
  std::size_t start = 0;
  int column = 0;
  const auto end_line = [&](std::size_t end) {
    const std::size_t from = std::clamp(boundary, start, end) - start;
    std::string line = text_.substr(start, end - start);
    lines_.push_back({std::move(line), from, start});
    column = 0;
  };
  for (std::size_t i = 0; i < text_.size(); ++i) {
    if (text_[i] == '\n') {
      end_line(i);
      start = i + 1;
      continue;
    }
    if (continues_character(text_[i])) continue;
    const int wide = text_[i] == '\t' ? 4 - column % 4 : 1;
    if (column + wide > columns) {
      end_line(i);
      start = i;
    }
    column += wide;
  }
  end_line(text_.size());
}

std::string GenerationText::selected() const {
  const auto [from, to] = std::minmax(from_, to_);
  return text_.substr(from, to - from);
}

std::size_t GenerationText::offset_at(const Pen& pen, ImVec2 origin, float step) const {
  if (lines_.empty()) return 0;
  const ImVec2 mouse = ImGui::GetMousePos();
  const float row = (mouse.y - origin.y) / step;
  if (row < 0) return 0;
  const auto index = static_cast<std::size_t>(row);
  if (index >= lines_.size()) return text_.size();
  const Line& line = lines_[index];
  std::size_t at = 0;
  while (at < line.text.size()) {
    std::size_t next = at + 1;
    while (next < line.text.size() && continues_character(line.text[next])) ++next;
    const std::string_view all = line.text;
    const float middle = (pen.width(all.substr(0, at), pen.mono) + pen.width(all.substr(0, next), pen.mono)) / 2;
    if (mouse.x < origin.x + middle) break;
    at = next;
  }
  return line.start + at;
}

void GenerationText::select_with_mouse(const Pen& pen, ImVec2 origin, float step) {
  const bool over = ImGui::IsWindowHovered();
  if (over) ImGui::SetMouseCursor(ImGuiMouseCursor_TextInput);
  if (over && ImGui::IsMouseDoubleClicked(ImGuiMouseButton_Left)) {
    const auto in_word = [&](std::size_t i) {
      const auto c = static_cast<unsigned char>(text_[i]);
      return std::isalnum(c) || c == '_' || c >= 0x80;
    };
    from_ = to_ = std::min(offset_at(pen, origin, step), text_.size());
    while (from_ > 0 && in_word(from_ - 1)) --from_;
    while (to_ < text_.size() && in_word(to_)) ++to_;
    marking_ = false;
  } else if (over && ImGui::IsMouseClicked(ImGuiMouseButton_Left)) {
    from_ = to_ = offset_at(pen, origin, step);
    marking_ = true;
  } else if (marking_) {
    to_ = offset_at(pen, origin, step);
    marking_ = ImGui::IsMouseDown(ImGuiMouseButton_Left);
  }
}

void GenerationText::draw_selection(const Pen& pen, const Line& line, ImVec2 at) const {
  const auto [from, to] = std::minmax(from_, to_);
  const std::size_t end = line.start + line.text.size();
  if (from == to || to <= line.start || from > end) return;
  const std::string_view all = line.text;
  const std::size_t first = std::max(from, line.start) - line.start, last = std::min(to, end) - line.start;
  const float x0 = at.x + pen.width(all.substr(0, first), pen.mono);
  const float x1 = at.x + pen.width(all.substr(0, last), pen.mono) + (to > end ? pen.px(4) : 0);  // the line's end too
  pen.fill({x0, at.y, x1, at.y + pen.mono->FontSize}, pen.theme->accent, 0.35f);
}

void GenerationText::draw(const Pen& outer, const Box& box, const GenerationStatus& generation, const TokenStyle& style) {
  if (box.empty()) return;
  outer.fill(box, outer.theme->background, 1, outer.px(4));
  outer.outline(box, outer.theme->hairline, 1, outer.px(4));
  const Box inner = box.inset(outer.px(8), outer.px(6));
  ImGui::SetCursorScreenPos(inner.min());
  ImGui::BeginChild("generated text", {std::max(inner.width(), 1.0f), std::max(inner.height(), 1.0f)}, false);
  Pen pen = outer;
  pen.list = ImGui::GetWindowDrawList();
  const float cell = std::max(pen.width("0", pen.mono), 1.0f), step = pen.mono->FontSize + pen.px(2);
  const int columns = std::max(8, static_cast<int>((inner.width() - ImGui::GetStyle().ScrollbarSize) / cell));
  // Tokens only ever grow within one generation; the last ones and the counts tell any two states apart.
  const std::string made_of =
      fmt::format("{}|{}|{}|{}|{}|{}", generation.run_id, generation.step, generation.tokens.size(),
                  generation.prompt_tokens, columns, fmt::join(generation.tokens, ","));
  if (made_of != made_of_) {
    wrap(generation, style, columns);
    made_of_ = made_of;
  }
  const ImVec2 origin = ImGui::GetCursorScreenPos();
  const float scroll = ImGui::GetScrollY();
  const auto first = static_cast<std::size_t>(std::max(0.0f, scroll / step));
  const auto last = std::min(lines_.size(), static_cast<std::size_t>((scroll + inner.height()) / step) + 2);
  select_with_mouse(pen, origin, step);
  for (std::size_t i = first; i < last; ++i) {
    const Line& line = lines_[i];
    const float y = origin.y + static_cast<float>(i) * step;
    draw_selection(pen, line, {origin.x, y});
    const std::string_view all = line.text, prompt = all.substr(0, line.generated_from),
                           made = all.substr(line.generated_from);
    pen.text({origin.x, y}, pen.theme->secondary, prompt, Align::left, pen.mono);
    pen.text({origin.x + pen.width(prompt, pen.mono), y}, pen.theme->text, made, Align::left, pen.mono);
  }
  if (generation.running && !lines_.empty()) {  // caret
    const float x = origin.x + pen.width(lines_.back().text, pen.mono),
                y = origin.y + static_cast<float>(lines_.size() - 1) * step;
    pen.fill({x + 1, y, x + 1 + pen.px(2), y + pen.mono->FontSize}, pen.theme->accent);
  }
  ImGui::Dummy({1, static_cast<float>(lines_.size()) * step});
  // The scroll range is known one frame after the text has grown.
  if (generation.tokens.size() != shown_tokens_) follow_frames_ = 2;
  if (follow_frames_ > 0) --follow_frames_, ImGui::SetScrollY(ImGui::GetScrollMaxY());
  shown_tokens_ = generation.tokens.size();
  ImGui::EndChild();
}

}  // namespace rat::views
