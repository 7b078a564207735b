// Every kind of figure to every format, looked into with the tools that a publisher uses.
#include <gtest/gtest.h>

#include <QImage>
#include <filesystem>
#include <fstream>
#include <set>

#include "app/figure/doctor.h"
#include "app/figure/exporters.h"
#include "app/figure/figure_files.h"
#include "app/figure/rebuild.h"
#include "app/figure/render.h"
#include "tests/app/figure_fixture.h"
#include "tests/views/plots_store.h"

namespace rat::app {
namespace {

struct Made {
  Recipe recipe;
  PlotDescription plot;
};

class FigureExport : public ::testing::Test {
 protected:
  void SetUp() override {
    database_ = folder_.path() / "runs.db";
    std::vector<test::StoredRun> runs;
    const std::vector<std::tuple<std::string, double, double, double>> kinds{
        {"attention*4", 1.421, 1100, 8.4e6}, {"rat:4*4", 1.428, 2900, 2.1e6}, {"rat:16*4", 1.437, 5200, 5.3e5},
        {"rat:64*4", 1.489, 6400, 1.4e5},    {"rnn*4", 1.561, 7000, 4e3},     {"rat:16,swa:128*2", 1.412, 4900, 5.6e5}};
    for (const auto& [layers, loss, decode, cache] : kinds)
      for (uint64_t seed = 1; seed <= 3; ++seed)
        runs.push_back(test::training_like(layers, seed, 400, loss, decode, cache));
    ids_ = test::write_runs(database_, runs);
  }

  Recipe recipe_of(FigureKind kind) const {
    Recipe recipe;
    recipe.kind = kind;
    recipe.commit = "3f2a91c";
    if (kind == FigureKind::curves) recipe.runs = {ids_[0], ids_[6], ids_[12]}, recipe.smoothing = 0.93;
    if (kind == FigureKind::tradeoff) recipe.runs = ids_, recipe.x.scale = Scale::log10;
    if (kind == FigureKind::throughput) recipe.runs = {ids_[6]};
    if (kind == FigureKind::scaling) recipe.metric = "time", recipe.bench = test::bench_rows();
    if (kind == FigureKind::states)
      recipe.probe = Probe::state_v, recipe.sort_channels = true, recipe.color_map = ColorMap::diverging,
      recipe.log_color = false;
    return recipe;
  }

  Made make(FigureKind kind) const {
    Made made{recipe_of(kind), {}};
    const auto store = StoreReader::open(database_);
    EXPECT_TRUE(store);
    const NumbersFrom from = numbers_from(kind);
    auto plot = from == NumbersFrom::trace    ? build_plot(made.recipe, trace_)
                : from == NumbersFrom::recipe ? build_plot(made.recipe)
                                              : build_plot(made.recipe, *store, figure_max_points);
    EXPECT_TRUE(plot) << plot.error().message;
    made.plot = *std::move(plot);
    return made;
  }

  test::Folder folder_;
  std::filesystem::path database_;
  std::vector<std::string> ids_;
  TraceSnapshot trace_ = test::small_trace(97, 6);
};

constexpr std::array all_kinds{FigureKind::curves,    FigureKind::tradeoff, FigureKind::throughput,
                               FigureKind::attention, FigureKind::states,   FigureKind::scaling};

TEST_F(FigureExport, EveryKindToEveryFormat) {
  for (const FigureKind kind : all_kinds) {
    const Made made = make(kind);
    for (const Exporter& exporter : figure_exporters()) {
      const auto path = folder_.path() / fmt::format("{}.{}", figure_kind_name(kind), exporter.id);
      const Status done = render_figure(made.plot, made.recipe, path, exporter.id);
      ASSERT_TRUE(done) << done.error().message;
      EXPECT_GT(std::filesystem::file_size(path), 100u) << path;
    }
  }
  EXPECT_FALSE(render_figure({}, {}, folder_.path() / "x.bmp", "bmp"));
}

TEST_F(FigureExport, PdfHasEmbeddedTrueTypeNoJpegAndTheVenuesWidth) {
  if (!test::has_program("pdffonts")) GTEST_SKIP() << "poppler-utils is not installed";
  for (const FigureKind kind : all_kinds)
    for (const char* venue : {"neurips", "icml", "acl"}) {
      Made made = make(kind);
      made.recipe.venue = venue;
      const auto path = folder_.path() / fmt::format("{}-{}.pdf", figure_kind_name(kind), venue);
      const Status done = render_figure(made.plot, made.recipe, path, "pdf");
      ASSERT_TRUE(done) << done.error().message;
      const std::string fonts = test::output_of("pdffonts " + path.string());
      EXPECT_EQ(fonts.find("Type 3"), std::string::npos) << fonts;
      EXPECT_NE(fonts.find("CID TrueType"), std::string::npos) << fonts;
      // One line a font after the two lines of heading: "emb" is the column that says yes.
      std::istringstream lines(fonts);
      std::string line;
      for (int n = 0; std::getline(lines, line); ++n) {
        if (n < 2) continue;
        EXPECT_NE(line.find("Identity-H       yes"), std::string::npos) << "not embedded: " << line;
      }
      const std::string images = test::output_of("pdfimages -list " + path.string());
      EXPECT_EQ(images.find("jpeg"), std::string::npos) << images;
      EXPECT_EQ(images.find("jpx"), std::string::npos) << images;
      const std::string info = test::output_of("pdfinfo " + path.string());
      const auto size = figure_size(made.recipe);
      EXPECT_NE(info.find(fmt::format("{} x {} pts", size->width_pt, size->height_pt)), std::string::npos) << info;
      EXPECT_NE(info.find("3f2a91c"), std::string::npos) << info;
      for (const std::string& run : made.plot.run_ids) EXPECT_NE(info.find(run), std::string::npos) << info;
      EXPECT_LT(std::filesystem::file_size(path), 200u << 10) << path;
    }
}

TEST_F(FigureExport, HeatMapIsOneImageOfItsOwnPixels) {
  if (!test::has_program("pdfimages")) GTEST_SKIP() << "poppler-utils is not installed";
  const Made made = make(FigureKind::attention);
  const auto path = folder_.path() / "map.pdf";
  ASSERT_TRUE(render_figure(made.plot, made.recipe, path, "pdf"));
  const std::string images = test::output_of("pdfimages -list " + path.string());
  const std::string size = fmt::format("{:5} {:5}", made.plot.heat_map->cols, made.plot.heat_map->rows);
  std::size_t found = 0;
  for (std::size_t at = images.find(size); at != std::string::npos; at = images.find(size, at + 1)) ++found;
  EXPECT_EQ(found, 1u) << images;
}

TEST_F(FigureExport, RecipeRebuildsTheSameFigure) {
  for (const FigureKind kind : all_kinds) {
    const Made made = make(kind);
    const auto stem = folder_.path() / fmt::format("first-{}", figure_kind_name(kind));
    const bool from_trace = numbers_from(kind) == NumbersFrom::trace;
    const auto files = write_figure_files(made.plot, made.recipe, from_trace ? &trace_ : nullptr, stem,
                                          {"pdf", "csv", "png", "svg", "json"});
    ASSERT_TRUE(files) << files.error().message;
    EXPECT_EQ(files->size(), from_trace ? 6u : 5u);
    for (const char* format : {"csv", "png", "svg", "pdf"}) {
      const auto again = folder_.path() / fmt::format("again-{}.{}", figure_kind_name(kind), format);
      const Status done = rebuild_figure(stem.string() + ".json", database_, again);
      ASSERT_TRUE(done) << done.error().message;
      std::string first = test::read_file(stem.string() + "." + format), second = test::read_file(again);
      if (std::string_view(format) == "pdf") {
        // Up to the moment of writing.
        for (std::string* text : {&first, &second})
          for (std::size_t at = text->find("/CreationDate"); at != std::string::npos;
               at = text->find("/CreationDate", at + 1))
            text->replace(at, 40, 40, ' ');
        EXPECT_EQ(first.size(), second.size());
      }
      EXPECT_EQ(first == second, true) << figure_kind_name(kind) << "." << format;
    }
  }
}

TEST_F(FigureExport, PngsShowSomethingAndDiffer) {
  std::set<std::string> seen;
  for (const FigureKind kind : all_kinds) {
    const Made made = make(kind);
    const auto image = figure_image(made.plot, made.recipe, 300);
    ASSERT_TRUE(image);
    EXPECT_EQ(image->width(), 1650);  // 5.5 in at 300 dpi
    std::set<QRgb> colors;
    for (int y = 0; y < image->height(); y += 3)
      for (int x = 0; x < image->width(); x += 3) colors.insert(image->pixel(x, y));
    EXPECT_GT(colors.size(), 20u) << figure_kind_name(kind);
    const auto path = folder_.path() / "x.png";
    ASSERT_TRUE(render_figure(made.plot, made.recipe, path, "png"));
    EXPECT_TRUE(seen.insert(test::read_file(path)).second);
    // The pictures stay for people to look at when RAT_SCREENSHOTS names a folder.
    if (const char* folder = std::getenv("RAT_SCREENSHOTS"))
      image->save(QString("%1/figure-%2.png").arg(folder, QString::fromStdString(std::string(figure_kind_name(kind)))));
  }
}

TEST_F(FigureExport, SvgTextIsOutlines) {
  const Made made = make(FigureKind::curves);
  const auto path = folder_.path() / "x.svg";
  ASSERT_TRUE(render_figure(made.plot, made.recipe, path, "svg"));
  const std::string svg = test::read_file(path);
  EXPECT_EQ(svg.find("<text"), std::string::npos);
  EXPECT_NE(svg.find("<title>training loss, nats</title>"), std::string::npos);
}

TEST_F(FigureExport, TikzCompiles) {
  if (!test::has_program("pdflatex")) GTEST_SKIP() << "pdflatex is not installed";
  if (std::system("kpsewhich pgfplots.sty >/dev/null 2>&1") != 0) GTEST_SKIP() << "pgfplots is not installed";
  for (const FigureKind kind : all_kinds) {
    Made made = make(kind);
    if (kind == FigureKind::curves) made.recipe.collapse_seeds = true;
    const std::string name(figure_kind_name(kind));
    ASSERT_TRUE(render_figure(made.plot, made.recipe, folder_.path() / (name + ".tikz"), "tikz"));
    std::ofstream(folder_.path() / (name + "-page.tex"))
        << "\\documentclass{article}\\usepackage{pgfplots}\\pgfplotsset{compat=1.17}\\usepgfplotslibrary{fillbetween}"
        << "\\setlength{\\textwidth}{5.5in}\\begin{document}\\noindent\\input{" << name << ".tikz}\\end{document}\n";
    const std::string log =
        test::output_of("cd " + folder_.path().string() + " && pdflatex -interaction=nonstopmode -halt-on-error " +
                        name + "-page.tex; test -s " + name + "-page.pdf");
    EXPECT_EQ(log.find("Overfull"), std::string::npos) << name << " is wider than its venue:\n"
                                                       << log.substr(std::min(log.size(), log.find("Overfull")), 90);
    if (const char* folder = std::getenv("RAT_SCREENSHOTS"))
      std::filesystem::copy_file(folder_.path() / (name + "-page.pdf"),
                                 std::filesystem::path(folder) / (name + "-tikz.pdf"),
                                 std::filesystem::copy_options::overwrite_existing);
  }
}

TEST_F(FigureExport, WriteErrorsAreOneSentence) {
  const Made made = make(FigureKind::curves);
  for (const char* format : {"pdf", "svg", "png", "csv", "tikz", "json"}) {
    const Status done = render_figure(made.plot, made.recipe, folder_.path() / "nowhere" / "x", format);
    ASSERT_FALSE(done) << format;
    EXPECT_FALSE(done.error().message.empty());
  }
  EXPECT_FALSE(rebuild_figure(folder_.path() / "missing.json", database_, folder_.path() / "x.pdf"));
  EXPECT_FALSE(write_figure_files(made.plot, made.recipe, nullptr, folder_.path() / "", {"csv"}));
}

TEST_F(FigureExport, DoctorSpeaksUpOnlyWhenSomethingIsWrong) {
  const auto bad = [](const std::vector<Finding>& findings, const std::string& part) {
    for (const Finding& finding : findings)
      if (!finding.good && finding.text.find(part) != std::string::npos) return true;
    return false;
  };
  Made made = make(FigureKind::curves);
  EXPECT_FALSE(bad(examine_figure(made.plot, made.recipe), "wide"));
  EXPECT_FALSE(bad(examine_figure(made.plot, made.recipe), "grey"));
  made.recipe.width_in = 7;
  EXPECT_TRUE(bad(examine_figure(made.plot, made.recipe), "7.00 in wide"));
  for (Series& series : made.plot.series) series.dash = Dash::solid, series.color = 0;
  EXPECT_TRUE(bad(examine_figure(made.plot, made.recipe), "same in grey"));
}

}  // namespace
}  // namespace rat::app
