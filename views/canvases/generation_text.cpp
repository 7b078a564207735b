#include "views/canvases/generation_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "views/canvases/token_text.h"

namespace rat::views {
namespace {

bool continues_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

}  // namespace

void GenerationText::wrap(const GenerationStatus& generation, bool byte_tokens, int columns) {
  const std::span tokens(generation.tokens);
  const auto prompt =
      static_cast<std::size_t>(std::clamp<int64_t>(generation.prompt_tokens, 0, static_cast<int64_t>(tokens.size())));
  text_ = running_text(tokens.first(prompt), byte_tokens);
  if (!byte_tokens && prompt > 0 && prompt < tokens.size()) text_ += ' ';
  const std::size_t boundary = text_.size();
  text_ += running_text(tokens.subspan(prompt), byte_tokens);

  lines_.clear();
  std::size_t start = 0;
  int column = 0;
  const auto end_line = [&](std::size_t end) {
    const std::size_t from = std::clamp(boundary, start, end) - start;
    std::string line = text_.substr(start, end - start);
    lines_.push_back({std::move(line), from});
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

void GenerationText::draw(const Pen& outer, const Box& box, const GenerationStatus& generation, bool byte_tokens) {
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
    wrap(generation, byte_tokens, columns);
    made_of_ = made_of;
  }
  const ImVec2 origin = ImGui::GetCursorScreenPos();
  const float scroll = ImGui::GetScrollY();
  const auto first = static_cast<std::size_t>(std::max(0.0f, scroll / step));
  const auto last = std::min(lines_.size(), static_cast<std::size_t>((scroll + inner.height()) / step) + 2);
  for (std::size_t i = first; i < last; ++i) {
    const Line& line = lines_[i];
    const float y = origin.y + static_cast<float>(i) * step;
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
