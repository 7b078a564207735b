// One canvas of the window: a widget that owns an ImGui context and draws one views::View with it.
// It repaints on news and on input, not for ever: `refresh` asks for a few frames, which is what ImGui needs to settle.
#pragma once

#include <QImage>
#include <QTimer>
#include <QWidget>
#include <functional>
#include <memory>
#include <string>

#include "app/window/fonts.h"
#include "app/window/gl_device.h"
#include "app/window/gl_texture_store.h"
#include "app/window/imgui_input.h"
#include "views/canvases/view.h"

struct ImGuiContext;

namespace rat::app {

class ImGuiCanvas final : public QWidget {
  Q_OBJECT

 public:
  // `fill` completes a frame (snapshots, selection, commands) just before it is drawn.
  ImGuiCanvas(const views::ViewType& type, std::function<void(views::Frame&)> fill, QWidget* parent = nullptr);
  ~ImGuiCanvas() override;

  const views::ViewType& type() const { return type_; }
  views::View& view() { return *view_; }
  void set_theme(const Theme& theme);
  void refresh(int frames = 2);
  bool wants_text() const;  // a text field of the canvas has the keyboard
  views::Frame frame();     // as the next repaint would see it
  int64_t frames_drawn() const { return frames_drawn_; }
  double last_frame_ms() const { return last_frame_ms_; }
  QString gl_description() const { return device_ ? device_->description() : QString("no OpenGL"); }

 signals:
  void drawn();

 protected:
  void paintEvent(QPaintEvent* event) override;
  bool event(QEvent* event) override;

 private:
  void render(float scale);
  void load_fonts(float scale);
  void draw_view();

  const views::ViewType& type_;
  std::function<void(views::Frame&)> fill_;
  std::unique_ptr<views::View> view_;
  ImGuiContext* context_ = nullptr;
  ImGuiInput input_;
  std::shared_ptr<GlDevice> device_;
  GlTarget target_;
  GlTextureStore textures_;
  QImage picture_;  // the newest frame
  CanvasFonts fonts_;
  const Theme* theme_;
  float scale_ = 0;
  bool gl_ready_ = false, style_dirty_ = true, frame_due_ = true, view_waits_ = false;
  int frames_wanted_ = 0;
  int64_t frames_drawn_ = 0;
  double last_frame_ms_ = 0;
  QTimer blink_, next_;
};

}  // namespace rat::app
