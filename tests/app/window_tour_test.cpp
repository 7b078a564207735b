// `--tour`: a picture of every canvas and dialog in both themes.
#include <set>

#include "app/window/tour.h"
#include "tests/app/window_fixture.h"
#include "views/canvases/view.h"

namespace rat::app {
namespace {

TEST_F(WindowTest, TourLeavesAPictureOfEverything) {
  open();
  ASSERT_NE(train(tiny_spec()), nullptr);
  ASSERT_NE(train(tiny_spec()), nullptr);  // two runs: there is something to compare
  close();
  const std::filesystem::path folder = std::filesystem::path(RAT_BINARY_DIR) / "artifacts" / "tour";
  std::filesystem::remove_all(folder);
  const Status done = run_tour(database(), folder);
  ASSERT_TRUE(done) << done.error().message;

  std::set<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    names.insert(file.path().stem().string().substr(3));  // without the number
    const QImage image(QString::fromStdString(file.path().string()));
    EXPECT_GT(variance(image.convertToFormat(QImage::Format_RGB32)), 1.0) << file.path();
  }
  for (const char* theme : {"dark", "light"}) {
    for (const views::ViewType& type : views::view_types())
      EXPECT_TRUE(names.contains("canvas-" + std::string(type.id) + "-" + theme)) << type.id;
    for (const char* name : {"canvas-tradeoff", "empty", "queue", "log", "command-palette", "shortcut-sheet",
                             "figure-attention", "figure-tradeoff", "figure-curves", "compare", "about"})
      EXPECT_TRUE(names.contains(std::string(name) + "-" + theme)) << name;
  }
}

TEST_F(WindowTest, TourOfARunWithoutAttentionDoesNotWaitForIt) {
  open();
  RunSpec spec = tiny_spec();
  spec.model.layers = *parse_layers("rnn*2");
  ASSERT_NE(train(spec), nullptr);
  close();
  const std::filesystem::path folder = std::filesystem::path(RAT_BINARY_DIR) / "artifacts" / "tour-rnn";
  std::filesystem::remove_all(folder);
  const Status done = run_tour(database(), folder);
  ASSERT_TRUE(done) << done.error().message;
  std::set<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(folder)) names.insert(file.path().stem().string().substr(3));
  EXPECT_TRUE(names.contains("canvas-attention-dark")) << "it says that an rnn has none";
  EXPECT_TRUE(names.contains("canvas-states-light"));
  EXPECT_FALSE(names.contains("figure-attention-dark"));
}

TEST_F(WindowTest, TourSaysWhyItCannotWrite) {
  const Status done = run_tour(database(), text_file() / "folder");
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find("text.txt"), std::string::npos);
}

}  // namespace
}  // namespace rat::app
