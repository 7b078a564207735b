#include "app/window/gl_texture_store.h"

#include <QOpenGLContext>

namespace rat::app {
namespace {
constexpr uint64_t keep_frames = 600;
}

void* GlTextureStore::texture(const std::string& key, uint64_t version, int width, int height, const uint32_t* pixels) {
  QOpenGLFunctions& gl = *QOpenGLContext::currentContext()->functions();
  Entry& entry = entries_[key];
  entry.last_used = frame_;
  const bool resized = entry.width != width || entry.height != height;
  if (entry.id != 0 && entry.version == version && !resized) return reinterpret_cast<void*>(uintptr_t{entry.id});

  if (entry.id == 0) gl.glGenTextures(1, &entry.id);
  GLint before = 0;
  gl.glGetIntegerv(GL_TEXTURE_BINDING_2D, &before);
  gl.glBindTexture(GL_TEXTURE_2D, entry.id);
  gl.glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_LINEAR);
  gl.glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);  // a cell is a square, not a blur
  gl.glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_WRAP_S, GL_CLAMP_TO_EDGE);
  gl.glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_WRAP_T, GL_CLAMP_TO_EDGE);
  gl.glPixelStorei(GL_UNPACK_ALIGNMENT, 4);
  if (resized) {
    gl.glTexImage2D(GL_TEXTURE_2D, 0, GL_RGBA, width, height, 0, GL_RGBA, GL_UNSIGNED_BYTE, pixels);
  } else {
    gl.glTexSubImage2D(GL_TEXTURE_2D, 0, 0, 0, width, height, GL_RGBA, GL_UNSIGNED_BYTE, pixels);
  }
  gl.glBindTexture(GL_TEXTURE_2D, static_cast<GLuint>(before));
  entry.version = version;
  entry.width = width;
  entry.height = height;
  return reinterpret_cast<void*>(uintptr_t{entry.id});
}

void GlTextureStore::drop_unused() {
  QOpenGLFunctions& gl = *QOpenGLContext::currentContext()->functions();
  std::erase_if(entries_, [&](auto& item) {
    if (item.second.last_used + keep_frames >= frame_) return false;
    gl.glDeleteTextures(1, &item.second.id);
    return true;
  });
}

void GlTextureStore::clear() {
  QOpenGLFunctions& gl = *QOpenGLContext::currentContext()->functions();
  for (auto& [key, entry] : entries_) gl.glDeleteTextures(1, &entry.id);
  entries_.clear();
}

}  // namespace rat::app
