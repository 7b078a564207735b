#include "app/window/gl_device.h"

#include <QGuiApplication>
#include <QOpenGLFunctions>
#include <algorithm>

namespace rat::app {
namespace {
constexpr GLenum bgra = 0x80E1;  // the order of QImage's pixels; core in desktop OpenGL, missing in some ES
}

std::shared_ptr<GlDevice> GlDevice::get() {
  static std::weak_ptr<GlDevice> shared;
  if (auto device = shared.lock()) return device;
  std::shared_ptr<GlDevice> device(new GlDevice);
  if (!device->create()) return nullptr;
  shared = device;
  return device;
}

bool GlDevice::create() {
  surface_.setFormat(QSurfaceFormat::defaultFormat());
  surface_.create();
  context_.setFormat(surface_.requestedFormat());
  if (!context_.create() || !context_.makeCurrent(&surface_)) return false;
  const auto* renderer = reinterpret_cast<const char*>(context_.functions()->glGetString(GL_RENDERER));
  description_ = QString("OpenGL %1.%2, %3")
                     .arg(context_.format().majorVersion())
                     .arg(context_.format().minorVersion())
                     .arg(renderer ? renderer : "unknown renderer");
  return true;
}

GlDevice::~GlDevice() { context_.doneCurrent(); }

const char* GlDevice::glsl_version() const {
  const QSurfaceFormat format = context_.format();
  if (context_.isOpenGLES()) return format.majorVersion() >= 3 ? "#version 300 es" : "#version 100";
  if (format.profile() == QSurfaceFormat::CoreProfile) return "#version 150";
  return format.majorVersion() >= 3 ? "#version 130" : "#version 120";
}

void GlTarget::bind(QSize size) {
  if (!buffer_ || buffer_->size() != size) buffer_ = std::make_unique<QOpenGLFramebufferObject>(size);
  buffer_->bind();
}

void GlTarget::read(QImage& image) {
  const bool es = QOpenGLContext::currentContext()->isOpenGLES();
  const QImage::Format format = es ? QImage::Format_RGBX8888 : QImage::Format_RGB32;
  if (image.size() != buffer_->size() || image.format() != format) image = QImage(buffer_->size(), format);
  QOpenGLFunctions& gl = *QOpenGLContext::currentContext()->functions();
  gl.glPixelStorei(GL_PACK_ALIGNMENT, 4);
  gl.glReadPixels(0, 0, image.width(), image.height(), es ? GL_RGBA : bgra, GL_UNSIGNED_BYTE, image.bits());
  for (int top = 0, bottom = image.height() - 1; top < bottom; ++top, --bottom)
    std::swap_ranges(image.scanLine(top), image.scanLine(top) + image.bytesPerLine(), image.scanLine(bottom));
}

QString opengl_problem() {
  if (GlDevice::get()) return {};
  return QString(
             "This display (%1) gives no OpenGL, so the canvases stay empty; without a screen, run under Xvfb: "
             "xvfb-run -a rat-workbench.")
      .arg(QGuiApplication::platformName());
}

}  // namespace rat::app
