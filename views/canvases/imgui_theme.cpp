#include <imgui.h>

#include "views/canvases/pen.h"

namespace rat::views {

void apply_theme(const Theme& theme, float scale) {
  ImGuiStyle style;  // from the defaults every time: ScaleAllSizes would compound
  style.WindowPadding = {0, 0};
  style.WindowRounding = style.ChildRounding = 0;
  style.WindowBorderSize = style.ChildBorderSize = 0;
  style.PopupBorderSize = style.FrameBorderSize = 1;
  style.FrameRounding = style.PopupRounding = style.GrabRounding = grid_step;
  style.ScrollbarRounding = grid_step;
  style.ScrollbarSize = 2.5f * grid_step;
  style.GrabMinSize = 3 * grid_step;
  style.ItemSpacing = {2 * grid_step, grid_step};
  style.ItemInnerSpacing = {grid_step, grid_step};
  style.ScaleAllSizes(scale);
  // 28 px controls whatever the face's line height is.
  const float line =
      ImGui::GetIO().Fonts->Fonts.empty() ? ui_font_px * scale : ImGui::GetIO().Fonts->Fonts[0]->FontSize;
  style.FramePadding = {2 * grid_step * scale, std::max(1.0f, (control_height * scale - line) / 2)};
  style.AntiAliasedLines = style.AntiAliasedFill = true;

  const auto set = [&style](int index, Color color, float alpha = 1) {
    style.Colors[index] = ImGui::ColorConvertU32ToFloat4(to_imgui(color, alpha));
  };
  for (int i = 0; i < ImGuiCol_COUNT; ++i) set(i, theme.raised);
  set(ImGuiCol_Text, theme.text);
  set(ImGuiCol_TextDisabled, theme.secondary);
  set(ImGuiCol_WindowBg, theme.pane);
  set(ImGuiCol_ChildBg, theme.pane, 0);
  set(ImGuiCol_PopupBg, theme.raised);
  set(ImGuiCol_Border, theme.hairline);
  set(ImGuiCol_BorderShadow, theme.pane, 0);
  set(ImGuiCol_FrameBg, theme.raised);
  set(ImGuiCol_FrameBgHovered, mix(theme.raised, theme.hairline, 0.5f));
  set(ImGuiCol_FrameBgActive, theme.hairline);
  set(ImGuiCol_ScrollbarBg, theme.pane, 0);
  set(ImGuiCol_ScrollbarGrab, theme.hairline);
  set(ImGuiCol_ScrollbarGrabHovered, mix(theme.hairline, theme.secondary, 0.4f));
  set(ImGuiCol_ScrollbarGrabActive, theme.secondary);
  set(ImGuiCol_CheckMark, theme.accent);
  set(ImGuiCol_SliderGrab, theme.accent);
  set(ImGuiCol_SliderGrabActive, theme.accent);
  set(ImGuiCol_Button, theme.raised);
  set(ImGuiCol_ButtonHovered, theme.hairline);
  set(ImGuiCol_ButtonActive, mix(theme.hairline, theme.accent, 0.3f));
  set(ImGuiCol_Header, mix(theme.raised, theme.accent, 0.25f));
  set(ImGuiCol_HeaderHovered, mix(theme.raised, theme.accent, 0.18f));
  set(ImGuiCol_HeaderActive, mix(theme.raised, theme.accent, 0.35f));
  set(ImGuiCol_Separator, theme.hairline);
  set(ImGuiCol_TextSelectedBg, theme.accent, 0.35f);
  set(ImGuiCol_NavHighlight, theme.accent);
  set(ImGuiCol_PlotHistogram, theme.accent);
  set(ImGuiCol_PlotLines, theme.accent);
  ImGui::GetStyle() = style;
}

}  // namespace rat::views
