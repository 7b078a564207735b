#include "app/window/imgui_input.h"

#include <imgui.h>

#include <QClipboard>
#include <QGuiApplication>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QWheelEvent>
#include <QWidget>
#include <array>
#include <bitset>
#include <cfloat>
#include <utility>

namespace rat::app {
namespace {

constexpr double notch_degrees_8 = 120.0;  // QWheelEvent counts eighths of a degree

// Index into ImGuiIO::KeysDown: ImGuiKey_ for the keys ImGui names, the Latin-1 code (shifted up) for other letters.
constexpr std::array<std::pair<int, int>, 22> key_map{{{Qt::Key_Tab, ImGuiKey_Tab},
                                                       {Qt::Key_Left, ImGuiKey_LeftArrow},
                                                       {Qt::Key_Right, ImGuiKey_RightArrow},
                                                       {Qt::Key_Up, ImGuiKey_UpArrow},
                                                       {Qt::Key_Down, ImGuiKey_DownArrow},
                                                       {Qt::Key_PageUp, ImGuiKey_PageUp},
                                                       {Qt::Key_PageDown, ImGuiKey_PageDown},
                                                       {Qt::Key_Home, ImGuiKey_Home},
                                                       {Qt::Key_End, ImGuiKey_End},
                                                       {Qt::Key_Insert, ImGuiKey_Insert},
                                                       {Qt::Key_Delete, ImGuiKey_Delete},
                                                       {Qt::Key_Backspace, ImGuiKey_Backspace},
                                                       {Qt::Key_Space, ImGuiKey_Space},
                                                       {Qt::Key_Return, ImGuiKey_Enter},
                                                       {Qt::Key_Escape, ImGuiKey_Escape},
                                                       {Qt::Key_Enter, ImGuiKey_KeyPadEnter},
                                                       {Qt::Key_A, ImGuiKey_A},
                                                       {Qt::Key_C, ImGuiKey_C},
                                                       {Qt::Key_V, ImGuiKey_V},
                                                       {Qt::Key_X, ImGuiKey_X},
                                                       {Qt::Key_Y, ImGuiKey_Y},
                                                       {Qt::Key_Z, ImGuiKey_Z}}};

int button_index(Qt::MouseButton button) {
  switch (button) {
    case Qt::LeftButton:
      return ImGuiMouseButton_Left;
    case Qt::RightButton:
      return ImGuiMouseButton_Right;
    case Qt::MiddleButton:
      return ImGuiMouseButton_Middle;
    default:
      return -1;
  }
}

const char* clipboard_text(void*) {
  static QByteArray held;  // ImGui reads it before the next call
  held = QGuiApplication::clipboard()->text().toUtf8();
  return held.constData();
}

void set_clipboard_text(void*, const char* text) { QGuiApplication::clipboard()->setText(QString::fromUtf8(text)); }

Qt::CursorShape shape_of(int cursor) {
  switch (cursor) {
    case ImGuiMouseCursor_TextInput:
      return Qt::IBeamCursor;
    case ImGuiMouseCursor_ResizeAll:
      return Qt::SizeAllCursor;
    case ImGuiMouseCursor_ResizeNS:
      return Qt::SizeVerCursor;
    case ImGuiMouseCursor_ResizeEW:
      return Qt::SizeHorCursor;
    case ImGuiMouseCursor_ResizeNESW:
      return Qt::SizeBDiagCursor;
    case ImGuiMouseCursor_ResizeNWSE:
      return Qt::SizeFDiagCursor;
    case ImGuiMouseCursor_Hand:
      return Qt::PointingHandCursor;
    case ImGuiMouseCursor_NotAllowed:
      return Qt::ForbiddenCursor;
    case ImGuiMouseCursor_None:
      return Qt::BlankCursor;
    default:
      return Qt::ArrowCursor;
  }
}

}  // namespace

int ImGuiInput::imgui_key(int qt_key) {
  for (const auto& [qt, imgui] : key_map)
    if (qt == qt_key) return imgui;
  return -1;
}

void ImGuiInput::attach() {
  ImGuiIO& io = ImGui::GetIO();
  for (int key = 0; key < ImGuiKey_COUNT; ++key) io.KeyMap[key] = key;
  io.BackendFlags |= ImGuiBackendFlags_HasMouseCursors;
  io.BackendPlatformName = "qt";
  io.GetClipboardTextFn = clipboard_text;
  io.SetClipboardTextFn = set_clipboard_text;
  io.IniFilename = nullptr;
  io.LogFilename = nullptr;
  clock_.start();
}

bool ImGuiInput::key_event(QKeyEvent* event) {
  const bool down = event->type() == QEvent::KeyPress;
  const int key = imgui_key(event->key());
  // Held keys repeat inside ImGui; Qt's own repeats would release the key in between.
  if (key >= 0 && !event->isAutoRepeat()) queue_.push_back({Event::Kind::key, {}, key, down, event->modifiers(), {}});
  const QString text = event->text();
  const bool printable = !text.isEmpty() && text.at(0).isPrint() && !(event->modifiers() & Qt::ControlModifier);
  if (down && printable) queue_.push_back({Event::Kind::text, {}, 0, true, event->modifiers(), text});
  return key >= 0 || printable;
}

bool ImGuiInput::handle(QEvent* event, float scale) {
  switch (event->type()) {
    case QEvent::MouseMove: {
      auto* mouse = static_cast<QMouseEvent*>(event);
      // Only the newest of a run of moves matters.
      if (!queue_.empty() && queue_.back().kind == Event::Kind::move) queue_.pop_back();
      queue_.push_back({Event::Kind::move, mouse->position() * scale, 0, false, mouse->modifiers(), {}});
      return true;
    }
    case QEvent::MouseButtonPress:
    case QEvent::MouseButtonDblClick:
    case QEvent::MouseButtonRelease: {
      auto* mouse = static_cast<QMouseEvent*>(event);
      const int button = button_index(mouse->button());
      if (button < 0) return false;
      queue_.push_back({Event::Kind::button,
                        mouse->position() * scale,
                        button,
                        event->type() != QEvent::MouseButtonRelease,
                        mouse->modifiers(),
                        {}});
      return true;
    }
    case QEvent::Wheel: {
      auto* wheel = static_cast<QWheelEvent*>(event);
      const QPointF notches = QPointF(wheel->angleDelta()) / notch_degrees_8;
      queue_.push_back({Event::Kind::wheel, notches, 0, false, wheel->modifiers(), {}});
      return true;
    }
    case QEvent::Leave:
      queue_.push_back({Event::Kind::move, {-FLT_MAX, -FLT_MAX}, 0, false, {}, {}});
      return true;
    case QEvent::FocusOut:
      queue_.push_back({Event::Kind::focus, {}, 0, false, {}, {}});
      return true;
    case QEvent::KeyPress:
    case QEvent::KeyRelease:
      return key_event(static_cast<QKeyEvent*>(event));
    default:
      return false;
  }
}

void ImGuiInput::apply(const Event& event) {
  ImGuiIO& io = ImGui::GetIO();
  io.KeyCtrl = event.modifiers & Qt::ControlModifier;
  io.KeyShift = event.modifiers & Qt::ShiftModifier;
  io.KeyAlt = event.modifiers & Qt::AltModifier;
  io.KeySuper = event.modifiers & Qt::MetaModifier;
  const ImVec2 position(static_cast<float>(event.position.x()), static_cast<float>(event.position.y()));
  switch (event.kind) {
    case Event::Kind::move:
      io.MousePos = position;
      break;
    case Event::Kind::button:
      io.MousePos = position;
      io.MouseDown[event.code] = event.down;
      break;
    case Event::Kind::wheel:
      io.MouseWheelH += position.x;
      io.MouseWheel += position.y;
      break;
    case Event::Kind::key:
      io.KeysDown[event.code] = event.down;
      break;
    case Event::Kind::text:
      io.AddInputCharactersUTF8(event.text.toUtf8().constData());
      break;
    case Event::Kind::focus:
      io.AddFocusEvent(false);
      break;
  }
}

void ImGuiInput::new_frame(QWidget& widget, float scale) {
  ImGuiIO& io = ImGui::GetIO();
  io.DisplaySize = ImVec2(static_cast<float>(widget.width()) * scale, static_cast<float>(widget.height()) * scale);
  io.DisplayFramebufferScale = ImVec2(1, 1);
  const double elapsed = static_cast<double>(clock_.nsecsElapsed()) * 1e-9;
  clock_.restart();
  // A canvas may rest for minutes between frames: the pause is not time that a key was held.
  io.DeltaTime = static_cast<float>(std::clamp(elapsed, 1e-4, 0.1));

  std::bitset<512> changed;
  bool button_changed = false;
  while (!queue_.empty()) {
    const Event& event = queue_.front();
    const auto code = static_cast<std::size_t>(event.code);
    if (button_changed && event.kind != Event::Kind::wheel) break;  // a button acts where the mouse was
    if (event.kind == Event::Kind::key && changed.test(code)) break;
    apply(event);
    if (event.kind == Event::Kind::key) changed.set(code);
    button_changed |= event.kind == Event::Kind::button;
    queue_.pop_front();
  }
}

void ImGuiInput::update_cursor(QWidget& widget) {
  const int cursor = ImGui::GetMouseCursor();
  if (std::exchange(cursor_, cursor) != cursor) widget.setCursor(shape_of(cursor));
}

}  // namespace rat::app
