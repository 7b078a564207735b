// Dear ImGui without a display: a font atlas, frames, a mouse, and textures that stay in memory.
#pragma once

#include <imgui.h>

#include <map>
#include <string>

#include "views/canvases/view.h"

namespace rat::views {

// Keeps what was uploaded, and fails the test on sizes that no graphics card must accept.
class MemoryTextures final : public TextureStore {
 public:
  void* texture(const std::string& key, uint64_t version, int width, int height, const uint32_t* pixels) override;

  struct Stored {
    uint64_t version = 0;
    int width = 0, height = 0;
    std::vector<uint32_t> pixels;
  };
  std::map<std::string, Stored> stored;
  int uploads = 0;
};

class Canvas {
 public:
  Canvas();
  ~Canvas();
  // One frame of the view in a window of the given size with the mouse at `mouse`.
  void draw(View& view, float width, float height, ImVec2 mouse = {-1, -1}, bool mouse_down = false, float wheel = 0);

  Frame frame;
  Selection selection;
  CommandSink commands;
  MemoryTextures textures;
};

// A trace with every probe that its layers have, filled with values that a test can recompute.
std::shared_ptr<TraceSnapshot> full_trace(const std::string& layers, int64_t tokens, int64_t d_model = 16,
                                          int64_t heads = 2, bool byte_tokens = true);
float state_value(int64_t token, int64_t channel);

}  // namespace rat::views
