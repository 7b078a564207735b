// The form: every kind of data of the list, sentences where they belong, and old runs that come back whole.
#include <QAction>
#include <QComboBox>
#include <QFileDialog>
#include <QLineEdit>
#include <QMenu>
#include <QPushButton>
#include <QTest>
#include <QToolButton>
#include <fstream>

#include "app/window/data_form.h"
#include "app/window/experiment_panel.h"
#include "app/window/number_fields.h"
#include "app/window/run_bar.h"
#include "app/window/runs_panel.h"
#include "tests/app/window_fixture.h"
#include "tests/support/tiny_tokenizer.h"

namespace rat::app {
namespace {

class FormTest : public WindowTest {
 protected:
  static DataForm& data_form(ExperimentPanel& form) { return *form.findChild<DataForm*>(); }
  template <class Widget>
  static Widget* field(ExperimentPanel& form, const std::string& key) {
    const auto& fields = data_form(form).fields();
    const auto at = fields.find(key);
    return at == fields.end() ? nullptr : qobject_cast<Widget*>(at->second);
  }
  template <class Widget>
  static Widget* named(QWidget& form, const QString& name) {
    for (Widget* one : form.findChildren<Widget*>())
      if (one->accessibleName() == name) return one;
    return nullptr;
  }
  static void choose(QComboBox& list, const QString& value) {
    const int index = list.findData(value);
    ASSERT_GE(index, 0) << value.toStdString();
    list.setCurrentIndex(index);
    emit list.activated(index);
  }
  static void choose_kind(ExperimentPanel& form, const std::string& kind) {
    choose(*field<QComboBox>(form, "data.kind"), QString::fromStdString(kind));
  }
  static void type(QWidget* into, const QString& text) {
    auto* line = qobject_cast<QLineEdit*>(into) ? qobject_cast<QLineEdit*>(into) : into->findChild<QLineEdit*>();
    line->selectAll();
    QTest::keyClicks(line, text);
  }
  std::string file(const char* name, const std::string& bytes) const {
    const std::string path = folder_.filePath(name).toStdString();
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
};

TEST_F(FormTest, OffersEveryKindOfTheListWithItsNumbers) {
  ExperimentPanel& form = open().experiment();
  auto* list = field<QComboBox>(form, "data.kind");
  ASSERT_EQ(list->count(), static_cast<int>(data_kinds().size()));
  for (const DataKind& kind : data_kinds()) {
    SCOPED_TRACE(std::string(kind.name));
    choose_kind(form, std::string(kind.name));
    EXPECT_EQ(list->currentText().toStdString(), kind.title);
    EXPECT_EQ(form.spec().data.kind, kind.name);
    EXPECT_EQ(form.spec().model.vocab, kind.vocab);
    EXPECT_EQ(form.valid(), kind.files != DataFiles::tokens) << form.problem().toStdString();
    for (const DataNumber& number : kind.numbers) {
      auto* box = field<IntegerBox>(form, std::string(number.key));
      ASSERT_NE(box, nullptr) << number.key;
      EXPECT_TRUE(box->isVisible());
      EXPECT_EQ(box->value(), DataConfig{}.*number.value);
      EXPECT_EQ(std::pair(box->low(), box->high()), std::pair(number.low, number.high));
      type(box, "3");
      EXPECT_EQ(form.spec().data.*number.value, 3) << number.key;
    }
    for (const DataNumber& number : data_numbers()) {
      const bool its_own = std::ranges::find(kind.numbers, number.key, &DataNumber::key) != kind.numbers.end();
      EXPECT_EQ(field<IntegerBox>(form, std::string(number.key)) != nullptr, its_own) << number.key;
    }
    EXPECT_EQ(field<QLineEdit>(form, "data.path") != nullptr, kind.files != DataFiles::none);
    run_loop(50);
    keep(picture(*window_), "form-" + std::string(kind.name));
  }
}

// A task of tomorrow: its line in the list is all that the window needs.
TEST_F(FormTest, ANewKindNeedsNothingInTheWindow) {
  open();
  std::vector<DataKind> kinds(data_kinds().begin(), data_kinds().end());
  const DataNumber bits{"data.span", "Bits", "Bits whose parity is asked for", &DataConfig::span, 2, 64};
  kinds.push_back({"parity", "Parity", "The parity of some bits.", DataFiles::none, 3, {bits, data_queries}});
  ExperimentPanel form({{"cpu", "AVX2 f32", "", {"f32"}}}, nullptr, kinds);
  choose_kind(form, "parity");
  EXPECT_EQ(form.spec().model.vocab, 3);
  auto* box = field<IntegerBox>(form, "data.span");
  ASSERT_NE(box, nullptr);
  type(box, "640");  // the last digit is beyond the range
  EXPECT_EQ(form.spec().data.span, 64);
  EXPECT_NE(field<IntegerBox>(form, "data.queries"), nullptr);
  EXPECT_NE(named<QLineEdit>(form, "Name of the run"), nullptr);
}

TEST_F(FormTest, TasksTrainFromTheForm) {
  MainWindow& window = open();
  for (const DataKind& kind : data_kinds()) {
    if (kind.files != DataFiles::none) continue;
    SCOPED_TRACE(std::string(kind.name));
    RunSpec spec = tiny_spec(10);
    spec.train.seq_len = 64;
    window.experiment().set_spec(spec);
    choose_kind(window.experiment(), std::string(kind.name));
    ASSERT_TRUE(window.experiment().valid()) << window.experiment().problem().toStdString();
    const RunRow* run = train(window.experiment().spec());
    ASSERT_NE(run, nullptr);
    EXPECT_EQ(parse_spec(run->spec_json)->data.kind, kind.name);
  }
}

TEST_F(FormTest, TokenFilesTrainFromTheForm) {
  MainWindow& window = open();
  ExperimentPanel& form = window.experiment();
  form.set_spec(tiny_spec(10));
  choose_kind(form, "tokens");
  EXPECT_TRUE(form.note("data").contains("data.path")) << form.note("data").toStdString();
  EXPECT_TRUE(form.is_wrong("data.path"));
  EXPECT_FALSE(window.bar().button("start")->isEnabled());
  std::string ids;
  for (int i = 0; i < 2000; ++i) ids += {static_cast<char>(i % 251), static_cast<char>(i % 3)};
  type(field<QLineEdit>(form, "data.path"), QString::fromStdString(file("ids.bin", ids)));
  type(field<IntegerBox>(form, "model.vocab"), "768");
  ASSERT_TRUE(form.valid()) << form.problem().toStdString();
  EXPECT_FALSE(form.is_wrong("data.path"));
  const RunRow* run = train(form.spec());
  ASSERT_NE(run, nullptr);
  EXPECT_EQ(parse_spec(run->spec_json)->model.vocab, 768);
}

TEST_F(FormTest, TheVocabularyFollowsTheTokenizer) {
  ExperimentPanel& form = open().experiment();
  const std::filesystem::path model = folder_.filePath("tiny.model").toStdString();
  test::train_tiny_tokenizer(model, 350);
  form.set_spec(tiny_spec());
  auto* tokenizer = field<QLineEdit>(form, "data.tokenizer");
  EXPECT_FALSE(tokenizer->isVisible());
  named<QToolButton>(form, "Choose: Source")->click();
  for (QAction* entry : data_form(form).findChild<QMenu*>()->actions())
    if (entry->text() == "Tokenizer...") entry->trigger();
  auto* dialog = data_form(form).findChild<QFileDialog*>();
  ASSERT_NE(dialog, nullptr);
  emit dialog->fileSelected(QString::fromStdString(model.string()));
  dialog->close();
  EXPECT_TRUE(tokenizer->isVisible());
  EXPECT_EQ(form.spec().data.tokenizer, model.string());
  EXPECT_EQ(form.spec().model.vocab, 350);
  EXPECT_TRUE(form.valid()) << form.problem().toStdString();
  type(field<IntegerBox>(form, "model.vocab"), "400");
  EXPECT_TRUE(form.note("data").contains("350 pieces")) << form.note("data").toStdString();
  EXPECT_TRUE(form.is_wrong("data.tokenizer") && form.is_wrong("model.vocab"));
  tokenizer->selectAll();
  QTest::keyClick(tokenizer, Qt::Key_Delete);
  EXPECT_EQ(form.spec().model.vocab, 256);  // bytes again
  EXPECT_TRUE(form.valid()) << form.problem().toStdString();
}

TEST_F(FormTest, SentencesStandAtTheFieldsTheyAreAbout) {
  MainWindow& window = open();
  ExperimentPanel& form = window.experiment();
  form.set_spec(tiny_spec());
  choose_kind(form, "needle");
  type(field<IntegerBox>(form, "data.pairs"), "20");
  EXPECT_TRUE(form.note("data").contains("20 pairs")) << form.note("data").toStdString();
  EXPECT_TRUE(form.is_wrong("data.pairs") && form.is_wrong("train.seq_len") && form.is_wrong("data.queries"));
  EXPECT_FALSE(form.is_wrong("train.lr") || form.is_wrong("model.heads"));
  EXPECT_TRUE(form.note("model").isEmpty() && form.note("train").isEmpty());
  EXPECT_FALSE(window.bar().button("start")->isEnabled());
  run_loop(50);
  keep(picture(window), "form-needle-problem");

  RunSpec heads = tiny_spec();
  heads.model.heads = 3;
  form.set_spec(heads);
  EXPECT_TRUE(form.note("data").isEmpty());
  EXPECT_TRUE(form.note("model").contains("heads must divide")) << form.note("model").toStdString();
  EXPECT_TRUE(form.is_wrong("model.heads") && form.is_wrong("model.d_model"));

  form.set_spec(tiny_spec());
  EXPECT_TRUE(form.valid());
  type(named<RealEdit>(form, "Peak learning rate"), "8e");
  EXPECT_TRUE(form.note("train").contains("\"8e\" is not a number")) << form.note("train").toStdString();
  EXPECT_TRUE(form.is_wrong("train.lr"));
  EXPECT_EQ(form.spec().train.optimizer.lr, 8) << "what was typed while it was a number";
  type(named<RealEdit>(form, "Peak learning rate"), "2e-3");
  EXPECT_EQ(form.spec().train.optimizer.lr, 2e-3);
  EXPECT_TRUE(form.valid() && !form.is_wrong("train.lr"));
}

TEST_F(FormTest, AMissingFileIsSaidUntilItIsThere) {
  MainWindow& window = open();
  RunSpec spec = tiny_spec();
  spec.data.path = folder_.filePath("later.txt").toStdString();
  window.experiment().set_spec(spec);
  EXPECT_TRUE(window.experiment().note("data").contains("later.txt"));
  EXPECT_TRUE(window.experiment().is_wrong("data.path"));
  EXPECT_FALSE(window.bar().button("start")->isEnabled());
  file("later.txt", std::string(5000, 'a'));
  QEvent back(QEvent::WindowActivate);  // as when the user comes back from a file manager
  QCoreApplication::sendEvent(&window.experiment(), &back);
  EXPECT_TRUE(window.experiment().valid()) << window.experiment().problem().toStdString();
  EXPECT_TRUE(window.bar().button("start")->isEnabled());
}

TEST_F(FormTest, AKindKeepsItsSettingsWhileAnotherIsLookedAt) {
  ExperimentPanel& form = open().experiment();
  form.set_spec(tiny_spec());
  const std::string before = to_json(form.spec());
  choose_kind(form, "mqar");
  type(field<IntegerBox>(form, "data.pairs"), "7");
  choose_kind(form, "text");
  EXPECT_EQ(to_json(form.spec()), before);
  choose_kind(form, "mqar");
  EXPECT_EQ(form.spec().data.pairs, 7);
}

// Values that no other field of the form could hold: more digits, larger numbers, keys that it does not show.
RunSpec far_out() {
  RunSpec spec;
  spec.name = "far out";
  spec.model.vocab = 513;
  spec.model.d_model = 96;
  spec.model.heads = 6;
  spec.model.groups = 3;
  spec.model.kv_heads = 2;
  spec.model.ffn_mult = 3;
  spec.model.rope_base = 5000.123456789012;
  spec.model.layers = *parse_layers("rat:8,swa:64*2,attention/nope,ratplus");
  spec.data.kind = "mqar";
  spec.data.path = "/not/used";
  spec.data.validation_fraction = 0.12345678901234567;
  spec.data.pairs = 123;
  spec.data.queries = 16001;
  spec.data.span = 77;
  spec.train.steps = 987'654'321'098;
  spec.train.batch = 60;
  spec.train.accumulate = 12;
  spec.train.seq_len = 1 << 21;
  spec.train.optimizer.lr = 0.00012345678901234567;
  spec.train.optimizer.beta2 = 0.987654321;
  spec.train.warmup = 3'000'000'000;
  spec.train.schedule = Schedule::constant;
  spec.train.dilations = {1, 64};
  spec.train.seed = 9'223'372'036'854'775'807u;
  spec.train.eval_every = 5'000'000'001;
  spec.train.eval_tokens = 999;
  spec.train.checkpoint_every = 6'000'000'001;
  spec.train.probe_every = 17;
  return spec;
}

TEST_F(FormTest, AnOldRunComesBackToTheLastDigit) {
  MainWindow& window = open();
  ExperimentPanel& form = window.experiment();
  const RunSpec old = far_out();
  ASSERT_TRUE(validate(old)) << validate(old).error().message;
  const std::string json = to_json(old);
  NewRun row;
  row.name = old.name;
  row.spec_json = json;
  row.spec_hash = spec_hash(old);
  row.layers = format_layers(old.model.layers);
  const Result<std::string> id = window.bench().writer().create_run(row);
  ASSERT_TRUE(id);
  window.bench().store().read(true);
  ASSERT_TRUE(wait_for([&] { return window.runs().shown() == 1; }));
  window.runs().select({*id});
  window.action("rerun")->trigger();
  EXPECT_EQ(to_json(form.spec()), json);
  EXPECT_EQ(named<IntegerBox>(form, "Seed")->text().toStdString(), "9,223,372,036,854,775,807");
}

// Editing one field changes that one and no other.
TEST_F(FormTest, AFieldWritesItsOwnValueOnly) {
  ExperimentPanel& form = open().experiment();
  form.set_spec(far_out());
  type(named<QLineEdit>(form, "Name of the run"), "renamed");
  type(named<IntegerBox>(form, "Seed"), "12");
  RunSpec expected = far_out();
  expected.name = "renamed";
  expected.train.seed = 12;
  EXPECT_EQ(to_json(form.spec()), to_json(expected));
  choose(*field<QComboBox>(form, "data.kind"), "mqar");  // the one it is
  EXPECT_EQ(to_json(form.spec()), to_json(expected));
}

TEST_F(FormTest, IntegersAreTypedSteppedAndBounded) {
  open();
  IntegerBox box(0, 5'000'000'000'000, "Number");
  box.set_lowest_text("half of T");
  box.set_value(0);
  EXPECT_EQ(box.text().toStdString(), "half of T");
  std::vector<qlonglong> seen;
  QObject::connect(&box, &IntegerBox::value_changed, [&](qlonglong value) { seen.push_back(value); });
  type(&box, "1234567890123");
  EXPECT_EQ(box.value(), 1'234'567'890'123);
  emit box.editingFinished();
  EXPECT_EQ(box.text().toStdString(), "1,234,567,890,123");
  type(&box, "x");  // no number: the value stays, and is shown again
  EXPECT_EQ(box.value(), 1'234'567'890'123);
  box.stepBy(1);
  EXPECT_EQ(box.value(), 1'234'567'890'124);
  box.set_value(4'999'999'999'999);
  box.stepBy(10);
  EXPECT_EQ(box.value(), 5'000'000'000'000);
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.back(), 5'000'000'000'000);
  box.set_value(3);
  box.stepBy(-10);
  EXPECT_EQ(box.text().toStdString(), "half of T");
}

TEST(ShortestText, ReadsBackAsTheSameNumber) {
  for (const double value : {8e-4, 0.1, 1.0 / 3, 0.00012345678901234567, 1e-300, 5e5})
    EXPECT_EQ(shortest_text(value).toDouble(), value);
  EXPECT_EQ(shortest_text(8e-4).toStdString(), "0.0008");
}

}  // namespace
}  // namespace rat::app
