#include "tests/app/window_fixture.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <QElapsedTimer>
#include <QEventLoop>
#include <QFile>
#include <QPushButton>
#include <QSettings>
#include <QSurfaceFormat>
#include <QTimer>
#include <cstdlib>

#include "app/window/experiment_panel.h"
#include "app/window/run_bar.h"
#include "app/window/theme_qt.h"
#include "app/window/ui_watchdog.h"

namespace rat::app {
namespace {

// Starts an Xvfb that dies with this process; true when DISPLAY names one that works.
bool start_xvfb() {
  int channel[2];
  if (pipe(channel) != 0) return false;
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    const std::string fd = std::to_string(channel[1]);
    ::close(channel[0]);
    const int nowhere = ::open("/dev/null", O_WRONLY);
    dup2(nowhere, 2);
    execlp("Xvfb", "Xvfb", "-displayfd", fd.c_str(), "-screen", "0", "2560x1440x24", "-nolisten", "tcp", nullptr);
    _exit(127);
  }
  ::close(channel[1]);
  // Up to the line's end: a server that writes into a closed pipe dies.
  std::string number;
  for (char c = 0; child > 0 && read(channel[0], &c, 1) == 1 && c != '\n';) number += c;
  ::close(channel[0]);
  if (number.empty()) return false;
  setenv("DISPLAY", fmt::format(":{}", number).c_str(), 1);
  return true;
}

// One application for the process; created by the first test, so that listing the tests needs no display.
bool application_ready() {
  static const bool ready = [] {
    if (!std::getenv("DISPLAY") && !std::getenv("WAYLAND_DISPLAY") && !start_xvfb()) return false;
    QSurfaceFormat format;
    format.setVersion(3, 3);
    format.setProfile(QSurfaceFormat::CoreProfile);
    format.setSwapInterval(0);
    QSurfaceFormat::setDefaultFormat(format);
    static int argc = 1;
    static char name[] = "window_test";
    static char* argv[] = {name, nullptr};
    new WindowApplication(argc, argv);  // lives as long as the process: Qt's statics outlast main
    QCoreApplication::setOrganizationName("rat-workbench");
    QCoreApplication::setApplicationName("rat-workbench");
    return true;
  }();
  return ready;
}

}  // namespace

void WindowTest::SetUp() {
  if (!application_ready()) GTEST_SKIP() << "NO DISPLAY AND NO Xvfb: the window is NOT tested. Install xvfb.";
  ASSERT_TRUE(folder_.isValid());
  // Settings of this test only.
  QSettings::setPath(QSettings::NativeFormat, QSettings::UserScope, folder_.filePath("config"));
  QFile text(QString::fromStdString(text_file().string()));
  ASSERT_TRUE(text.open(QIODevice::WriteOnly));
  for (int line = 0; line < 500; ++line)
    text.write(QByteArray("the gate keeps what the state has seen, line ") + QByteArray::number(line) + "\n");
}

void WindowTest::TearDown() { close(); }

std::filesystem::path WindowTest::database() const { return folder_.filePath("runs.db").toStdString(); }
std::filesystem::path WindowTest::text_file() const { return folder_.filePath("text.txt").toStdString(); }

RunSpec WindowTest::tiny_spec(int64_t steps) const {
  RunSpec spec;
  spec.name = "tiny";
  spec.model.d_model = 32;
  spec.model.heads = 2;
  spec.model.layers = *parse_layers("rat:8*2");
  spec.data.path = text_file().string();
  spec.train.steps = steps;
  spec.train.batch = 4;
  spec.train.seq_len = 32;
  spec.train.warmup = 2;
  spec.train.eval_every = 10;
  spec.train.eval_tokens = 256;
  spec.train.checkpoint_every = 20;
  return spec;
}

MainWindow& WindowTest::open(QSize size, std::vector<Device> offered) {
  Result<std::unique_ptr<Workbench>> bench = Workbench::open(database());
  EXPECT_TRUE(bench) << (bench ? "" : bench.error().message);
  window_ = std::make_unique<MainWindow>(*std::move(bench), std::move(offered));
  window_->resize(size);
  window_->show();
  QApplication::setActiveWindow(window_.get());  // there may be no window manager to do it
  run_loop(100);
  return *window_;
}

void WindowTest::close() {
  if (!window_) return;
  window_->close();
  EXPECT_TRUE(wait_for([&] { return !window_->isVisible(); })) << "the window did not close";
  window_.reset();
}

bool WindowTest::wait_for(const std::function<bool()>& done, int limit_ms) {
  QElapsedTimer timer;
  timer.start();
  while (!done()) {
    if (timer.elapsed() > int64_t{limit_ms} * slowness) return false;
    run_loop(5);
  }
  return true;
}

void WindowTest::run_loop(int ms) {
  QEventLoop loop;
  QTimer::singleShot(ms, &loop, &QEventLoop::quit);
  loop.exec();
}

const RunRow* WindowTest::train(const RunSpec& spec) {
  const std::size_t before = window_->bench().runs()->size();
  window_->experiment().set_spec(spec);
  window_->bar().button("start")->click();
  const auto finished = [&]() -> const RunRow* {
    const auto& runs = *window_->bench().runs();
    return runs.size() > before && runs.front().state == RunState::finished ? &runs.front() : nullptr;
  };
  EXPECT_TRUE(wait_for([&] { return finished() && !window_->bench().busy(); }, 60'000))
      << window_->bench().status().message;
  EXPECT_EQ(window_->bench().status().step, spec.train.steps) << "the window shows an earlier step of an ended run";
  return finished();
}

QImage WindowTest::picture(QWidget& widget) { return widget.grab().toImage().convertToFormat(QImage::Format_RGB32); }

double WindowTest::variance(const QImage& image) {
  double sum = 0, squares = 0;
  for (int y = 0; y < image.height(); ++y)
    for (int x = 0; x < image.width(); ++x) {
      const double grey = qGray(image.pixel(x, y));
      sum += grey;
      squares += grey * grey;
    }
  const double count = static_cast<double>(image.width()) * image.height();
  return squares / count - (sum / count) * (sum / count);
}

double WindowTest::difference(const QImage& a, const QImage& b) {
  if (a.size() != b.size() || a.isNull()) return 1;
  int64_t differ = 0;
  for (int y = 0; y < a.height(); ++y)
    for (int x = 0; x < a.width(); ++x) differ += a.pixel(x, y) != b.pixel(x, y);
  return static_cast<double>(differ) / (static_cast<double>(a.width()) * a.height());
}

void WindowTest::keep(const QImage& image, const std::string& name) {
  const std::filesystem::path folder = std::filesystem::path(RAT_BINARY_DIR) / "artifacts" / "window";
  std::filesystem::create_directories(folder);
  EXPECT_TRUE(image.save(QString::fromStdString((folder / (name + ".png")).string())));
}

}  // namespace rat::app
