// Chunk length L on a log2 scale from 1 (attention) to T (rnn).
#pragma once

#include <QSlider>
#include <QWidget>
#include <cstdint>

class QLabel;

namespace rat::app {

class ChunkSlider : public QWidget {
  Q_OBJECT

 public:
  explicit ChunkSlider(QWidget* parent = nullptr);
  void set_context(int64_t tokens);  // T
  // 0: no rat layer; lengths between powers of two are shown as they are.
  void set_chunk(int64_t chunk);
  int64_t chunk() const { return chunk_; }
  QSlider& slider() { return *slider_; }

 signals:
  void chunk_changed(qint64 chunk);  // by the user

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  int64_t length_at(int position) const;

  QSlider* slider_;
  QLabel* value_;
  int64_t context_ = 256, chunk_ = 16;
};

}  // namespace rat::app
