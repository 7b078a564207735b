// One metric in the Curves panel: its name, the values under the shared cursor, a log switch, and the plot.
#pragma once

#include <QLabel>
#include <QToolButton>
#include <QWidget>
#include <optional>

#include "app/figure/plot_widget.h"

namespace rat::app {

class MetricPlot : public QWidget {
  Q_OBJECT

 public:
  explicit MetricPlot(std::string metric, QWidget* parent = nullptr);

  const std::string& metric() const { return metric_; }
  PlotWidget& plot() { return *plot_; }
  const PlotWidget& plot() const { return *plot_; }
  void show(const PlotDescription& plot, const Theme& theme, bool with_x_label);
  void show_empty(const QString& text, const Theme& theme);
  void set_cursor(std::optional<double> x);

 protected:
  void resizeEvent(QResizeEvent* event) override;

 private:
  void read_out();

  std::string metric_;
  QLabel *title_, *values_;
  QToolButton* log_;
  PlotWidget* plot_;
  const Theme* theme_;
  std::optional<double> cursor_;
};

}  // namespace rat::app
