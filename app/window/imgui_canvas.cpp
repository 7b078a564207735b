#include "app/window/imgui_canvas.h"

#include <backends/imgui_impl_opengl3.h>
#include <imgui.h>

#include <QElapsedTimer>
#include <QKeyEvent>
#include <QOpenGLContext>
#include <QOpenGLFunctions>
#include <QPainter>
#include <cmath>

namespace rat::app {
namespace {

constexpr int blink_ms = 400;  // the text cursor of a field
constexpr int frame_ms = 12;   // between the frames that an input asks for
constexpr int waiting_ms = 40;  // between looks at what a view waits for

// Keys that a canvas may use even while the window has them as shortcuts: a view's own navigation.
bool is_navigation(const QKeyEvent& key) {
  switch (key.key()) {
    case Qt::Key_Left:
    case Qt::Key_Right:
    case Qt::Key_Up:
    case Qt::Key_Down:
    case Qt::Key_Home:
    case Qt::Key_End:
    case Qt::Key_PageUp:
    case Qt::Key_PageDown:
    case Qt::Key_Escape:
    case Qt::Key_Tab:
      return !(key.modifiers() & Qt::AltModifier);
    default:
      return false;
  }
}

}  // namespace

ImGuiCanvas::ImGuiCanvas(const views::ViewType& type, std::function<void(views::Frame&)> fill, QWidget* parent)
    : QWidget(parent), type_(type), fill_(std::move(fill)), view_(type.make()), theme_(&theme(ThemeKind::dark)) {
  IMGUI_CHECKVERSION();
  context_ = ImGui::CreateContext();
  ImGui::SetCurrentContext(context_);
  input_.attach();
  setFocusPolicy(Qt::StrongFocus);
  setMouseTracking(true);
  setAttribute(Qt::WA_OpaquePaintEvent);
  setMinimumSize(320, 240);
  setAccessibleName(QString::fromUtf8(type.title.data(), static_cast<int>(type.title.size())));
  blink_.setInterval(blink_ms);
  connect(&blink_, &QTimer::timeout, this, [this] { refresh(1); });
  next_.setSingleShot(true);
  connect(&next_, &QTimer::timeout, this, [this] {
    frame_due_ = true;
    update();
  });
}

ImGuiCanvas::~ImGuiCanvas() {
  ImGui::SetCurrentContext(context_);
  if (gl_ready_) {
    device_->make_current();
    textures_.clear();
    target_.release();
    ImGui_ImplOpenGL3_Shutdown();
  }
  ImGui::DestroyContext(context_);
}

void ImGuiCanvas::load_fonts(float scale) {
  fonts_ = load_canvas_fonts(*ImGui::GetIO().Fonts, scale);
  ImGui_ImplOpenGL3_DestroyFontsTexture();
  ImGui_ImplOpenGL3_CreateFontsTexture();
  scale_ = scale;
  style_dirty_ = true;
}

void ImGuiCanvas::paintEvent(QPaintEvent*) {
  const auto scale = static_cast<float>(devicePixelRatioF());
  const QSize pixels(static_cast<int>(std::ceil(width() * scale)), static_cast<int>(std::ceil(height() * scale)));
  if (!device_) device_ = GlDevice::get();
  if (device_ && (frame_due_ || picture_.size() != pixels)) render(scale);
  QPainter painter(this);
  if (picture_.isNull()) {
    painter.fillRect(rect(), QColor(theme_->pane.r, theme_->pane.g, theme_->pane.b));
  } else {
    painter.drawImage(QPoint(0, 0), picture_);
  }
  if (!device_) return;
  if (frames_wanted_ > 0 || input_.pending())
    next_.start(frame_ms);
  else if (view_waits_)
    next_.start(waiting_ms);
}

void ImGuiCanvas::render(float scale) {
  QElapsedTimer timer;
  timer.start();
  frame_due_ = false;
  ImGui::SetCurrentContext(context_);
  device_->make_current();
  if (!gl_ready_) gl_ready_ = ImGui_ImplOpenGL3_Init(device_->glsl_version());
  if (scale != scale_) load_fonts(scale);
  if (std::exchange(style_dirty_, false)) views::apply_theme(*theme_, scale);

  if (frames_wanted_ > 0) --frames_wanted_;
  input_.new_frame(*this, scale);
  textures_.begin_frame();
  ImGui_ImplOpenGL3_NewFrame();
  ImGui::NewFrame();
  draw_view();
  ImGui::Render();

  const QSize size(static_cast<int>(std::ceil(ImGui::GetIO().DisplaySize.x)),
                   static_cast<int>(std::ceil(ImGui::GetIO().DisplaySize.y)));
  target_.bind(size);
  QOpenGLFunctions& gl = *QOpenGLContext::currentContext()->functions();
  const Color& back = theme_->pane;
  gl.glViewport(0, 0, size.width(), size.height());
  gl.glClearColor(back.r / 255.0f, back.g / 255.0f, back.b / 255.0f, 1.0f);
  gl.glClear(GL_COLOR_BUFFER_BIT);
  ImGui_ImplOpenGL3_RenderDrawData(ImGui::GetDrawData());
  target_.read(picture_);
  picture_.setDevicePixelRatio(scale);
  textures_.drop_unused();
  input_.update_cursor(*this);

  const bool blinking = ImGui::GetIO().WantTextInput;
  if (blinking != blink_.isActive()) blinking ? blink_.start() : blink_.stop();
  ++frames_drawn_;
  last_frame_ms_ = static_cast<double>(timer.nsecsElapsed()) * 1e-6;
  emit drawn();
}

void ImGuiCanvas::draw_view() {
  views::Frame next = frame();
  const ImGuiIO& io = ImGui::GetIO();
  ImGui::SetNextWindowPos(ImVec2(0, 0));
  ImGui::SetNextWindowSize(io.DisplaySize);
  constexpr ImGuiWindowFlags flags = ImGuiWindowFlags_NoDecoration | ImGuiWindowFlags_NoMove |
                                     ImGuiWindowFlags_NoSavedSettings | ImGuiWindowFlags_NoBringToFrontOnFocus |
                                     ImGuiWindowFlags_NoNav | ImGuiWindowFlags_NoScrollWithMouse;
  if (ImGui::Begin("canvas", nullptr, flags)) view_->draw(next);
  ImGui::End();
  view_waits_ = next.wants_frame;
}

views::Frame ImGuiCanvas::frame() {
  views::Frame next;
  fill_(next);
  next.textures = &textures_;
  next.theme = theme_;
  next.mono = fonts_.mono;
  next.small_caps = fonts_.heading;
  next.scale = scale_ > 0 ? scale_ : static_cast<float>(devicePixelRatioF());
  return next;
}

void ImGuiCanvas::set_theme(const Theme& theme) {
  theme_ = &theme;
  style_dirty_ = true;
  refresh();
}

void ImGuiCanvas::refresh(int frames) {
  frames_wanted_ = std::max(frames_wanted_, frames);
  frame_due_ = true;
  if (isVisible()) update();
}

bool ImGuiCanvas::wants_text() const {
  ImGui::SetCurrentContext(context_);
  return ImGui::GetIO().WantTextInput;
}

bool ImGuiCanvas::event(QEvent* event) {
  if (event->type() == QEvent::ShortcutOverride) {
    // While a field of the canvas is edited, plain letters and the editing keys are text, not shortcuts.
    auto* key = static_cast<QKeyEvent*>(event);
    const bool plain = !(key->modifiers() & (Qt::ControlModifier | Qt::AltModifier));
    const bool editing = wants_text() && (plain || QString("ACVXZY").contains(QChar(key->key() & 0xffff)));
    if (editing || is_navigation(*key)) {
      event->accept();
      return true;
    }
  }
  if (event->type() == QEvent::KeyPress && !wants_text()) {
    auto* key = static_cast<QKeyEvent*>(event);
    views::Frame now = frame();
    int view_key = ImGuiInput::imgui_key(key->key());
    if (view_key < 0 && key->key() > Qt::Key_Space && key->key() < 0x7f) view_key = key->key();  // 'L', '[': see View
    const bool used = view_key >= 0 && view_->key_pressed(view_key, key->modifiers() & Qt::ControlModifier,
                                                          key->modifiers() & Qt::ShiftModifier, now);
    if (used) {
      refresh();
      return true;
    }
  }
  ImGui::SetCurrentContext(context_);
  if (input_.handle(event, static_cast<float>(devicePixelRatioF()))) {
    refresh(3);
    // Keys that the canvas did not need go on to the window (shortcuts, focus by Tab).
    if (event->type() != QEvent::KeyPress || wants_text()) {
      if (event->type() != QEvent::Leave && event->type() != QEvent::FocusOut) return true;
    }
  }
  return QWidget::event(event);
}

}  // namespace rat::app
