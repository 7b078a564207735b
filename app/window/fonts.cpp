#include "app/window/fonts.h"

#include <imgui.h>
#ifdef RAT_FREETYPE
#include <imgui_freetype.h>
#endif

#include <QDirIterator>
#include <QFontDatabase>
#include <QRawFont>
#include <QStandardPaths>
#include <algorithm>

#include "views/theme/theme.h"

namespace rat::app {
namespace {

constexpr double heading_px = 11.0;

// Punctuation, Greek, Cyrillic, arrows, operators and shapes besides Latin: prompts and labels use them.
constexpr ImWchar glyph_ranges[] = {0x0020, 0x024f, 0x0370, 0x03ff, 0x0400, 0x04ff, 0x2010, 0x205e, 0x2070, 0x209f,
                                    0x20a0, 0x20bf, 0x2100, 0x218f, 0x2190, 0x22ff, 0x2300, 0x23ff, 0x2400, 0x2426,
                                    0x2500, 0x25ff, 0x2600, 0x263f, 0x2700, 0x27bf, 0xfffd, 0xfffd, 0};

QString find_file(const QStringList& names) {
  static const QHash<QString, QString> by_name = [] {
    QHash<QString, QString> found;
    for (const QString& folder : QStandardPaths::standardLocations(QStandardPaths::FontsLocation)) {
      QDirIterator files(folder, {"*.ttf", "*.otf"}, QDir::Files, QDirIterator::Subdirectories);
      while (files.hasNext()) {
        const QString path = files.next();
        found.insert(files.fileName(), path);
      }
    }
    return found;
  }();
  for (const QString& name : names)
    if (const auto at = by_name.find(name); at != by_name.end()) return *at;
  return {};
}

// Registers the file with Qt so that the family is this very face; returns the family's name.
QString register_face(const QString& file) {
  if (file.isEmpty()) return {};
  const QStringList families = QFontDatabase::applicationFontFamilies(QFontDatabase::addApplicationFont(file));
  return families.isEmpty() ? QString() : families.front();
}

FontFiles locate() {
  FontFiles files;
  files.ui = find_file({"Inter-Regular.otf", "Inter-Regular.ttf", "DejaVuSans.ttf", "LiberationSans-Regular.ttf"});
  files.ui_semibold = files.ui.contains("Inter") ? find_file({"Inter-SemiBold.otf", "Inter-SemiBold.ttf"})
                                                 : find_file({"DejaVuSans-Bold.ttf", "LiberationSans-Bold.ttf"});
  files.mono = find_file({"JetBrainsMono-Regular.ttf", "DejaVuSansMono.ttf", "LiberationMono-Regular.ttf"});
  files.symbols = find_file({"DejaVuSans.ttf"});
  files.ui_family = register_face(files.ui);
  register_face(files.ui_semibold);
  files.mono_family = register_face(files.mono);
  return files;
}

// ImGui sizes a face by ascent + descent, Qt by its em: the height that makes both draw the same letters.
float line_height_px(const QString& file, double em_px) {
  const QRawFont face(file, em_px);
  return face.isValid() ? static_cast<float>(face.ascent() + face.descent()) : static_cast<float>(em_px);
}

void equal_width_digits(ImFont& font) {
  float widest = 0;
  for (ImWchar c = '0'; c <= '9'; ++c)
    if (const ImFontGlyph* glyph = font.FindGlyphNoFallback(c)) widest = std::max(widest, glyph->AdvanceX);
  for (ImWchar c = '0'; c <= '9'; ++c) {
    auto* glyph = const_cast<ImFontGlyph*>(font.FindGlyphNoFallback(c));
    if (!glyph) continue;
    const float shift = std::round((widest - glyph->AdvanceX) / 2);
    glyph->X0 += shift;
    glyph->X1 += shift;
    glyph->AdvanceX = widest;
    font.IndexAdvanceX[c] = widest;
  }
}

ImFont* add_face(ImFontAtlas& atlas, const QString& file, double em_px, float scale, const QString& symbols) {
  ImFontConfig config;
  config.PixelSnapH = true;
  config.OversampleH = config.OversampleV = 1;
  const double device_px = em_px * scale;
  ImFont* font = file.isEmpty() ? nullptr
                                : atlas.AddFontFromFileTTF(file.toUtf8().constData(), line_height_px(file, device_px),
                                                           &config, glyph_ranges);
  if (!font) return atlas.AddFontDefault();
  if (!symbols.isEmpty() && symbols != file) {
    config.MergeMode = true;
    atlas.AddFontFromFileTTF(symbols.toUtf8().constData(), line_height_px(symbols, device_px), &config, glyph_ranges);
  }
  return font;
}

}  // namespace

const FontFiles& font_files() {
  static const FontFiles files = locate();
  return files;
}

QFont ui_font(int weight, double size_px) {
  QFont font(font_files().ui_family);
  font.setPixelSize(static_cast<int>(size_px > 0 ? size_px : double{ui_font_px}));
  font.setWeight(static_cast<QFont::Weight>(weight));
  font.setHintingPreference(QFont::PreferVerticalHinting);
  return font;
}

QFont heading_font() {
  QFont font = ui_font(QFont::DemiBold, heading_px);
  font.setCapitalization(QFont::AllUppercase);
  font.setLetterSpacing(QFont::AbsoluteSpacing, 0.6);
  return font;
}

QFont mono_font() {
  QFont font(font_files().mono_family);
  font.setPixelSize(static_cast<int>(ui_font_px));
  font.setStyleHint(QFont::Monospace);
  return font;
}

CanvasFonts load_canvas_fonts(ImFontAtlas& atlas, float scale) {
  const FontFiles& files = font_files();
  atlas.Clear();
#ifdef RAT_FREETYPE
  // Hinted as Qt hints; without FreeType's headers ImGui's own rasteriser draws the same outlines.
  atlas.FontBuilderIO = ImGuiFreeType::GetBuilderForFreeType();
  atlas.FontBuilderFlags = ImGuiFreeTypeBuilderFlags_LightHinting;
#endif
  CanvasFonts fonts;
  fonts.ui = add_face(atlas, files.ui, ui_font_px, scale, files.symbols);
  fonts.mono = add_face(atlas, files.mono, ui_font_px, scale, files.symbols);
  fonts.heading = add_face(atlas, files.ui_semibold, heading_px, scale, files.symbols);
  atlas.Build();
  equal_width_digits(*fonts.ui);
  equal_width_digits(*fonts.heading);
  return fonts;
}

}  // namespace rat::app
