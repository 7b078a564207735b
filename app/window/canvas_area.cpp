#include "app/window/canvas_area.h"

#include <QAction>
#include <QComboBox>
#include <QDockWidget>
#include <QTabBar>
#include <QTimer>
#include <QToolButton>

#include "app/figure/tradeoff_canvas.h"
#include "app/window/theme_qt.h"

namespace rat::app {
namespace {

QString text_of(std::string_view view) { return QString::fromUtf8(view.data(), static_cast<qsizetype>(view.size())); }

}  // namespace

CanvasArea::CanvasArea(Workbench& bench, QWidget* parent)
    : QMainWindow(parent, Qt::Widget), bench_(bench), figure_(new QToolButton(this)) {
  setWindowFlags(Qt::Widget);
  setObjectName("canvas_area");
  setDockOptions(AllowTabbedDocks | AllowNestedDocks | GroupedDragging);
  setDocumentMode(true);
  setTabPosition(Qt::AllDockWidgetAreas, QTabWidget::North);
  for (const views::ViewType& type : views::view_types()) {
    const std::string_view id = type.id;
    auto* canvas = new ImGuiCanvas(
        type, [this, id](views::Frame& frame) { bench_.fill_frame(id, frame); }, this);
    add(text_of(type.id), text_of(type.title), canvas);
    entries_.back().canvas = canvas;
  }
  tradeoff_ = new TradeoffCanvas(bench.database(), this);
  // Its boxes may be narrower than their longest entry: the window fits on 1280 px.
  for (QComboBox* box : tradeoff_->findChildren<QComboBox*>()) {
    box->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
    box->setMinimumContentsLength(11);
  }
  for (QToolButton* button : tradeoff_->findChildren<QToolButton*>())
    button->setVisible(!button->text().startsWith("Figure"));  // the row of tabs has this button
  add("tradeoff", "Trade-off", tradeoff_);
  figure_->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
  reset_layout();
}

void CanvasArea::add(const QString& id, const QString& title, QWidget* content) {
  auto* dock = new QDockWidget(title, this);
  dock->setObjectName("canvas_" + id);
  dock->setWidget(content);
  dock->setFeatures(QDockWidget::DockWidgetMovable | QDockWidget::DockWidgetFloatable);
  // Tabs carry the titles; a title bar comes back only when the dock floats.
  dock->setTitleBarWidget(new QWidget(dock));
  connect(dock, &QDockWidget::topLevelChanged, dock, [dock](bool floating) {
    QWidget* bar = dock->titleBarWidget();
    dock->setTitleBarWidget(floating ? nullptr : new QWidget(dock));
    if (bar) bar->deleteLater();
  });
  connect(dock, &QDockWidget::visibilityChanged, this, [this, id](bool visible) {
    if (visible) {
      current_ = id;
      emit current_changed(id);
    }
    visibility_changed();
  });
  entries_.push_back({id, dock, nullptr});
}

void CanvasArea::reset_layout() {
  for (Entry& entry : entries_) {
    entry.dock->setFloating(false);
    addDockWidget(Qt::TopDockWidgetArea, entry.dock);
    entry.dock->show();
  }
  for (std::size_t i = 1; i < entries_.size(); ++i) tabifyDockWidget(entries_[i - 1].dock, entries_[i].dock);
  show_canvas(entries_.front().id);
}

void CanvasArea::visibility_changed() {
  // After the tab change has settled; several docks report one change.
  QTimer::singleShot(0, this, [this] {
    std::vector<VisibleCanvas> visible;
    for (const Entry& entry : entries_) {
      if (!entry.canvas || !is_on_screen(entry.id)) continue;
      visible.push_back({entry.canvas->type().id, &entry.canvas->view()});
      entry.canvas->refresh(3);
    }
    bench_.set_visible(std::move(visible));
  });
}

bool CanvasArea::is_on_screen(const QString& id) const {
  for (const Entry& entry : entries_)
    if (entry.id == id) return entry.dock->isVisible() && !entry.dock->widget()->visibleRegion().isEmpty();
  return false;
}

void CanvasArea::set_figure_action(QAction* action) {
  figure_->setText("Figure...  " + action->shortcut().toString(QKeySequence::NativeText));
  connect(figure_, &QToolButton::clicked, action, &QAction::trigger);
  connect(action, &QAction::changed, figure_, [this, action] { figure_->setEnabled(action->isEnabled()); });
  place_button();
}

void CanvasArea::place_button() {
  const QSize size = figure_->sizeHint();
  figure_->setGeometry(width() - size.width() - 8, 4, size.width(), size.height());
  figure_->raise();
}

void CanvasArea::resizeEvent(QResizeEvent* event) {
  QMainWindow::resizeEvent(event);
  place_button();
}

void CanvasArea::set_theme(const Theme& theme) {
  for (Entry& entry : entries_)
    if (entry.canvas) entry.canvas->set_theme(theme);
  tradeoff_->set_theme(theme);
  figure_->setIcon(glyph_icon(Glyph::figure, to_qt(theme.secondary)));
}

void CanvasArea::refresh_visible() {
  for (Entry& entry : entries_)
    if (entry.canvas && entry.canvas->isVisible()) entry.canvas->refresh(1);
}

void CanvasArea::show_canvas(const QString& id) {
  for (Entry& entry : entries_) {
    if (entry.id != id) continue;
    entry.dock->show();
    entry.dock->raise();
    current_ = id;
    emit current_changed(id);
    QWidget* content = entry.dock->widget();
    content->setFocus(Qt::OtherFocusReason);
  }
}

QString CanvasArea::current() const { return current_; }

ImGuiCanvas* CanvasArea::canvas(const QString& id) const {
  for (const Entry& entry : entries_)
    if (entry.id == id) return entry.canvas;
  return nullptr;
}

QStringList CanvasArea::ids() const {
  QStringList all;
  for (const Entry& entry : entries_) all.append(entry.id);
  return all;
}

}  // namespace rat::app
