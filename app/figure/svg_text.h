// An SVG names its fonts but does not carry them, so it would look different elsewhere: text becomes outlines.
#pragma once

#include <QByteArray>

namespace rat::app {

// Replaces every <text> that QSvgGenerator wrote by a <path>, with the text kept as its <title>.
QByteArray outline_svg_text(const QByteArray& svg);

}  // namespace rat::app
