// One sans face for the interface and one mono face for tokens, the same files and sizes in Qt and in ImGui.
#pragma once

#include <QFont>
#include <QString>

struct ImFont;
struct ImFontAtlas;

namespace rat::app {

// Where the faces are; an empty path: not installed, and ImGui falls back to its built-in bitmap face.
struct FontFiles {
  QString ui, ui_semibold, mono, symbols;  // symbols: fills glyphs that the others lack
  QString ui_family, mono_family;
};

// Found once, in the font folders of the system and the user. Inter and JetBrains Mono, else DejaVu.
const FontFiles& font_files();

QFont ui_font(int weight = QFont::Normal, double size_px = 0);  // 0: ui_font_px
QFont heading_font();                                           // small capitals: capitals, 11 px, spaced
QFont mono_font();

struct CanvasFonts {
  ImFont* ui = nullptr;
  ImFont* mono = nullptr;
  ImFont* heading = nullptr;
};
// Fills the atlas for `scale` device pixels per logical pixel. Digits get equal widths, so nothing jumps.
CanvasFonts load_canvas_fonts(ImFontAtlas& atlas, float scale);

}  // namespace rat::app
