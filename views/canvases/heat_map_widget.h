// A heat map with axes, colour bar, crosshair, zoom and pan. Wheel zooms about the mouse (over an axis: that axis
// only), drag pans, double click fits, click reports a cell. New data never changes a zoom the user made.
#pragma once

#include <functional>
#include <future>
#include <string>

#include "views/canvases/heat_raster.h"
#include "views/canvases/pen.h"

namespace rat::views {

struct MapAxes {
  std::string x_label, y_label, value_label;
  bool last_column_apart = false;    // rat attention: the query's own running state
  int64_t x_every = 0, y_every = 0;  // boundaries (chunks, heads) in cells; 0: none
};

struct MapCursor {
  int64_t hover_row = -1, hover_col = -1;  // -1: none
  int64_t pinned_row = -1, pinned_col = -1;
};

struct MapResult {
  bool hovered = false, clicked = false;
  int64_t row = -1, col = -1;  // under the mouse while hovered
  Box plot, apart;             // where the main columns and the last column are
  Window window;               // what the plot shows
};

class HeatMapWidget {
 public:
  explicit HeatMapWidget(std::string key) : key_(std::move(key)) {}

  // Replaces the matrix when `identity` differs from the last one.
  void set_matrix(const std::string& identity, const std::function<MatrixPyramid()>& build);
  // The same for a matrix that may be large: its reduced copies are made on a thread of its own, and until they are
  // there the newest matrix of the same `family` (one layer and head, say) stays. False: there is nothing to show yet.
  bool request_matrix(const std::string& family, const std::string& identity, int64_t cells,
                      std::function<MatrixPyramid()> build);
  bool pending() const { return coming_.valid(); }
  const MatrixPyramid& matrix() const { return matrix_; }
  const std::string& identity() const { return identity_; }  // of the matrix shown
  void fit() { fitted_ = true; }
  bool fitted() const { return fitted_; }
  Window window() const { return window_; }

  MapResult draw(const Pen& pen, const Box& box, TextureStore* textures, const MapAxes& axes, const ColorScale& scale,
                 const MapCursor& cursor);
  // "max of 4 x 2 cells per pixel", empty when every cell has its own pixel.
  std::string reduction_note() const;

 private:
  struct Layout {
    Box plot, apart, x_axis, y_axis, bar;
  };
  struct Image {
    Raster raster;
    uint64_t version = 0;
    std::string made_of;
  };
  Layout arrange(const Pen& pen, Box box, const MapAxes& axes) const;
  int64_t main_columns(const MapAxes& axes) const;
  void navigate(const Layout& layout, const MapAxes& axes, MapResult& result);
  void zoom(double factor, double at_x, double at_y, bool x, bool y);
  void keep_inside(const MapAxes& axes);
  void draw_image(const Pen& pen, TextureStore* textures, Image& image, const char* suffix, const Box& box,
                  const Window& window, const ColorScale& scale);
  void draw_axes(const Pen& pen, const Layout& layout, const MapAxes& axes) const;
  void draw_boundaries(const Pen& pen, const Layout& layout, const MapAxes& axes) const;
  void draw_crosshair(const Pen& pen, const Layout& layout, const MapAxes& axes, int64_t row, int64_t col,
                      Color color) const;

  void replace(const std::string& identity, MatrixPyramid matrix);

  std::string key_, identity_, family_, coming_identity_, coming_family_;
  std::future<MatrixPyramid> coming_;  // valid: being built
  MatrixPyramid matrix_;
  uint64_t matrix_version_ = 0;
  Window window_;
  bool fitted_ = true, dragging_ = false;
  Image main_image_, apart_image_;
};

// Vertical colour bar with numbers; `marked` (may be NaN) gets a pointer.
void draw_color_bar(const Pen& pen, const Box& box, const ColorScale& scale, std::string_view title, float marked);
float color_bar_width(const Pen& pen);

}  // namespace rat::views
