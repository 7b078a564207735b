// The generation's inside, newest token at the right edge: attention of the newest token by head, or the state over
// time.
#pragma once

#include "views/canvases/map_controls.h"

namespace rat::views {

class LiveStrip {
 public:
  void draw(const Pen& pen, Box box, Frame& frame);
  ProbeRequest probes(const Selection& selection, const ModelConfig& model) const;
  std::optional<Recipe> recipe(const Frame& frame) const;

 private:
  enum class What { state, gate, attention };
  What effective(const LayerConfig& layer) const;  // what this kind of layer can show
  static Probe probe_of(What what, const LayerConfig& layer);
  void set_matrix(const Frame& frame, const ProbeTensor& tensor, What what, int layer);
  void draw_header(const Pen& pen, Box& box, const TraceSnapshot& trace, Selection& selection, What what);

  What wanted_ = What::state;
  HeatMapWidget map_{"generate"};
  MapControls controls_{ScaleKind::log}, state_controls_{ScaleKind::linear};
  std::string identity_;
};

}  // namespace rat::views
