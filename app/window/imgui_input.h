// The Qt platform side of Dear ImGui: mouse, wheel, keyboard, text, clipboard and cursor shapes of one widget.
// ImGui 1.86 reads states, not events: a press and a release between two frames would be lost. So events are queued
// and every frame takes at most one change of each button and key.
#pragma once

#include <QElapsedTimer>
#include <QEvent>
#include <QPointF>
#include <QString>
#include <deque>

class QKeyEvent;
class QWidget;

namespace rat::app {

class ImGuiInput {
 public:
  // Fills the key map and the clipboard functions of the current ImGui context.
  void attach();
  // Queues the event; false when ImGui has no use for it. `scale`: device pixels per logical pixel.
  bool handle(QEvent* event, float scale);
  // Sets up ImGuiIO for the next frame of the current context.
  void new_frame(QWidget& widget, float scale);
  // After the frame: the cursor shape ImGui asks for.
  void update_cursor(QWidget& widget);
  bool pending() const { return !queue_.empty(); }

  // ImGuiKey_ of a Qt key, or -1.
  static int imgui_key(int qt_key);

 private:
  struct Event {
    enum class Kind { move, button, wheel, key, text, focus } kind;
    QPointF position;  // device pixels; for wheel: notches
    int code = 0;      // button or key index
    bool down = false;
    Qt::KeyboardModifiers modifiers;
    QString text;
  };
  bool key_event(QKeyEvent* event);
  void apply(const Event& event);

  std::deque<Event> queue_;
  QElapsedTimer clock_;
  int cursor_ = -2;
};

}  // namespace rat::app
