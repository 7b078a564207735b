#include "app/window/chunk_slider.h"

#include <QHBoxLayout>
#include <QLabel>
#include <QPainter>
#include <QSignalBlocker>
#include <QVBoxLayout>
#include <algorithm>
#include <bit>
#include <cmath>

#include "app/window/fonts.h"
#include "app/window/theme_qt.h"
#include "app/window/widgets.h"

namespace rat::app {
namespace {
constexpr int handle_radius = 7, tick_row = 18;
}

ChunkSlider::ChunkSlider(QWidget* parent)
    : QWidget(parent), slider_(new QSlider(Qt::Horizontal, this)), value_(label("", "secondary", this)) {
  slider_->setAccessibleName("Chunk length, log2");
  slider_->setPageStep(1);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  column->addWidget(slider_);
  column->addSpacing(tick_row);
  column->addWidget(value_);
  value_->setWordWrap(true);
  connect(slider_, &QSlider::valueChanged, this, [this](int position) {
    const int64_t chunk = length_at(position);
    set_chunk(chunk);
    emit chunk_changed(chunk);
  });
  set_context(context_);
}

int64_t ChunkSlider::length_at(int position) const {
  return position >= slider_->maximum() ? context_ : int64_t{1} << position;
}

void ChunkSlider::set_context(int64_t tokens) {
  context_ = std::max<int64_t>(tokens, 1);
  const QSignalBlocker quiet(slider_);
  const int steps = static_cast<int>(std::ceil(std::log2(static_cast<double>(context_))));
  slider_->setRange(0, std::max(steps, 1));
  set_chunk(chunk_);
}

void ChunkSlider::set_chunk(int64_t chunk) {
  chunk_ = chunk;
  const QSignalBlocker quiet(slider_);
  slider_->setEnabled(chunk > 0);
  if (chunk > 0)
    slider_->setValue(chunk >= context_ ? slider_->maximum()
                                        : static_cast<int>(std::lround(std::log2(static_cast<double>(chunk)))));
  if (chunk <= 0) {
    value_->setText("No rat layer in the pattern.");
  } else if (chunk == 1) {
    value_->setText("L = 1: attention over single tokens");
  } else if (chunk >= context_) {
    value_->setText(QString("L = %1 \u2265 T: one chunk, a pure rnn").arg(chunk));
  } else {
    value_->setText(QString("L = %1: %2 chunks of %1 tokens").arg(chunk).arg((context_ + chunk - 1) / chunk));
  }
  update();
}

void ChunkSlider::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  const Theme& theme = current_theme();
  painter.setPen(to_qt(theme.secondary));
  painter.setFont(ui_font(QFont::Normal, 11));
  const QRect track = slider_->geometry();
  const int steps = slider_->maximum();
  const double span = track.width() - 2 * handle_radius;
  const int stride = steps > 7 ? 2 : 1;
  const double y = track.bottom() + 2;
  for (int i = 0; i <= steps; ++i) {
    const bool end = i == steps;
    if (!end && (i % stride != 0 || steps - i < stride)) continue;
    const QString text = end ? QStringLiteral("T") : QString::number(int64_t{1} << i);
    const double x = track.left() + handle_radius + span * i / steps;
    painter.drawText(QRectF(x - 30, y, 60, tick_row), Qt::AlignHCenter | Qt::AlignTop, text);
  }
}

}  // namespace rat::app
