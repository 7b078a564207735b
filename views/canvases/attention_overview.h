// Thumbnails of every layer and head with the entropy of its weights; one texture for all of them.
#pragma once

#include <string>

#include "views/canvases/heat_raster.h"
#include "views/canvases/pen.h"

namespace rat::views {

class AttentionOverview {
 public:
  explicit AttentionOverview(std::string key) : key_(std::move(key)) {}
  // Draws into the top of `box` (cut off), within `height`; a click sets layer and head of the selection.
  void draw(const Pen& pen, Box& box, float height, const TraceSnapshot& trace, const std::string& identity,
            Selection& selection, TextureStore* textures);

 private:
  struct Plan {
    float thumb = 0;                                // edge length; 0: no room
    int rows = 1, first_layer = 0, last_layer = 0;  // [first, last) are shown
  };
  Plan plan(const Pen& pen, float width, float height, const TraceSnapshot& trace, int selected_layer) const;
  void build_atlas(const Pen& pen, const TraceSnapshot& trace, const Plan& plan);
  float group_width(const Pen& pen, const TraceSnapshot& trace, int layer, float thumb) const;
  void draw_group(const Pen& pen, ImVec2 at, const TraceSnapshot& trace, int layer, const Plan& plan,
                  Selection& selection, void* atlas);

  std::string key_, made_of_;
  uint64_t version_ = 0;
  Raster atlas_;
};

}  // namespace rat::views
