// Heat-map pixels on the graphics card, one texture a key, uploaded only when their version changes.
#pragma once

#include <QOpenGLFunctions>
#include <string>
#include <unordered_map>

#include "views/canvases/view.h"

namespace rat::app {

// Calls need the canvas's GL context to be current.
class GlTextureStore final : public views::TextureStore {
 public:
  void* texture(const std::string& key, uint64_t version, int width, int height, const uint32_t* pixels) override;
  void begin_frame() { ++frame_; }
  // Deletes textures that no frame has asked for lately, so that a long session does not fill the card.
  void drop_unused();
  void clear();

 private:
  struct Entry {
    GLuint id = 0;
    uint64_t version = 0, last_used = 0;
    int width = 0, height = 0;
  };
  std::unordered_map<std::string, Entry> entries_;
  uint64_t frame_ = 0;
};

}  // namespace rat::app
