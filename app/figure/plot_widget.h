// A plot on screen: draws a PlotDescription in the window's theme and answers the mouse and the keys.
// Drag pans, wheel zooms (with Ctrl or Alt only when `wheel_needs_modifier`), right-drag zooms into a box, double-click
// or A fits, L / Shift+L toggle the logarithmic y / x axis. New data never changes a zoom the user made.
#pragma once

#include <qcustomplot.h>

#include <optional>
#include <string>
#include <vector>

#include "views/plots/plot.h"
#include "views/theme/theme.h"

namespace rat::app {

class PlotWidget : public QCustomPlot {
  Q_OBJECT

 public:
  explicit PlotWidget(QWidget* parent = nullptr);

  // keep_zoom: a range the user chose stays; otherwise (and while following) the axes fit the data.
  void show_plot(const PlotDescription& plot, const Theme& theme, bool keep_zoom);
  // Text that the next show_plot puts over an empty plot: what to do next.
  void set_empty_text(const QString& text);
  // The cursor shared by several plots: a vertical line at x (data coordinates); none hides it.
  void set_cursor(std::optional<double> x);
  void set_x_range(double low, double high);  // as if the user had zoomed, without the signal
  void set_follow(bool follow);               // true: fit again with every show_plot
  bool following() const { return following_; }
  void fit();
  void set_log_y(bool on);
  void set_log_x(bool on);
  bool log_y() const { return log_y_; }
  bool log_x() const { return log_x_; }
  void set_wheel_needs_modifier(bool needs) { wheel_needs_modifier_ = needs; }
  void set_legend_visible(bool visible);
  void set_title_visible(bool visible);
  // Every plot of a stack with the same left margin: axis rectangles line up. 0: automatic.
  void set_left_margin(int pixels);
  void set_selected_run(const std::string& run_id);  // its point is ringed
  const PlotDescription& plot() const { return plot_; }
  // The limits that are shown now, for a recipe: none while following.
  std::optional<std::pair<double, double>> x_limits() const;
  std::optional<std::pair<double, double>> y_limits() const;

 signals:
  void point_clicked(QString run_id, QStringList seeds);  // seeds: every run that the point is the mean of
  void point_hovered(QString label, QString run_id, double x, double y);  // empty strings: no point
  void cursor_moved(double x);                                            // NaN: the mouse left the plot
  void following_changed(bool following);
  void scales_changed();
  void x_range_changed(double low, double high);  // by the user

 protected:
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mouseReleaseEvent(QMouseEvent* event) override;
  void mouseDoubleClickEvent(QMouseEvent* event) override;
  void wheelEvent(QWheelEvent* event) override;
  void leaveEvent(QEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;

 private:
  struct Hit {
    const Series* series = nullptr;
    std::size_t index = 0;
  };
  Hit hit(const QPointF& position) const;
  double x_to_axis_fast(double value) const;
  double y_to_axis_fast(double value) const;
  void rebuild(bool keep_zoom);
  void user_zoomed();
  void place_cursor();
  void place_cursor_again();
  static void pan(QCPAxis* axis, double from_pixel, double to_pixel);

  PlotDescription plot_;
  const Theme* theme_;
  QString empty_text_;
  std::string selected_run_;
  std::optional<double> cursor_;
  QCPItemStraightLine* cursor_line_ = nullptr;  // owned by the plot
  bool following_ = true, shown_ = false;
  bool log_x_ = false, log_y_ = false, scales_touched_x_ = false, scales_touched_y_ = false;
  bool wheel_needs_modifier_ = false, legend_visible_ = true, title_visible_ = true;
  int left_margin_ = 0;
  QPointF press_, last_;
  bool pressed_ = false;
};

}  // namespace rat::app
