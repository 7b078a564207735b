// The real window on a temporary database, under Xvfb when there is no display.
#pragma once

#include <gtest/gtest.h>

#include <QImage>
#include <QTemporaryDir>
#include <filesystem>
#include <functional>
#include <memory>

#include "app/window/main_window.h"
#include "experiments/run_spec.h"

namespace rat::app {

// Slower builds and busy machines: waits are generous, promises about time are scaled by this.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int slowness = 10;
#else
inline constexpr int slowness = 1;
#endif

class WindowTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  std::filesystem::path database() const;
  std::filesystem::path text_file() const;  // 20 kB of text to train on
  // 1 layer of width 32 on 32 tokens: trains in well under a second.
  RunSpec tiny_spec(int64_t steps = 40) const;
  MainWindow& open(QSize size = {1280, 800}, std::vector<Device> offered = devices());
  void close();

  // Runs the event loop until `done`, at most `limit_ms` times the slowness; false when it did not happen.
  static bool wait_for(const std::function<bool()>& done, int limit_ms = 30'000);
  static void run_loop(int ms);
  // Trains through the form and the Start button; returns the finished run.
  const RunRow* train(const RunSpec& spec);
  static QImage picture(QWidget& widget);
  static double variance(const QImage& image);                     // of the grey values
  static double difference(const QImage& a, const QImage& b);      // share of pixels that differ
  static void keep(const QImage& image, const std::string& name);  // among the build's artefacts

  QTemporaryDir folder_;
  std::unique_ptr<MainWindow> window_;
};

}  // namespace rat::app
