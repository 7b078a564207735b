// One OpenGL context for all canvases, without a window. A canvas renders into an image and paints that like any
// widget: a QOpenGLWidget would make Qt compose the whole window with OpenGL whenever a label changes, which takes
// longer than the canvas itself where OpenGL is done in software.
#pragma once

#include <QImage>
#include <QOffscreenSurface>
#include <QOpenGLContext>
#include <QOpenGLFramebufferObject>
#include <QString>
#include <memory>

namespace rat::app {

class GlDevice {
 public:
  // Shared by those who hold it; null when this display gives no OpenGL.
  static std::shared_ptr<GlDevice> get();
  ~GlDevice();

  void make_current() { context_.makeCurrent(&surface_); }
  const char* glsl_version() const;
  const QString& description() const { return description_; }  // "OpenGL 4.5, llvmpipe"

 private:
  GlDevice() = default;
  bool create();

  QOffscreenSurface surface_;
  QOpenGLContext context_;
  QString description_;
};

// What one canvas renders into. The device's context must be current.
class GlTarget {
 public:
  void bind(QSize size);  // device pixels
  // Copies what was rendered into `image`, top row first.
  void read(QImage& image);
  void release() { buffer_.reset(); }

 private:
  std::unique_ptr<QOpenGLFramebufferObject> buffer_;
};

// One sentence when this display gives no OpenGL; empty when canvases can draw.
QString opengl_problem();

}  // namespace rat::app
