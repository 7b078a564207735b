// Qt's style sheet from the theme's colours: 28 px controls, hairlines instead of boxes, one accent.
#pragma once

#include <QString>

#include "views/theme/theme.h"

namespace rat::app {

QString style_sheet(const Theme& theme);

}  // namespace rat::app
