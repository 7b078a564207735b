// The one theme, as Qt sees it: palette, style sheet and icons. Views and plots read the same rat::Theme.
#pragma once

#include <QColor>
#include <QIcon>
#include <QPalette>
#include <QString>

#include "views/theme/theme.h"

class QApplication;

namespace rat::app {

QColor to_qt(const Color& color);
QColor blend(const Color& a, const Color& b, double share_of_b);
void apply_qt_theme(QApplication& application, const Theme& theme);
const Theme& current_theme();  // the one applied last

// Line icons drawn in the theme's colours: no files, sharp at every scale.
enum class Glyph { start, pause, step, stop, figure, search, close, fold };
QIcon glyph_icon(Glyph glyph, const QColor& color);

}  // namespace rat::app
