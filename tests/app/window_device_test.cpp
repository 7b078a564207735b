// The form on machines with and without a GPU, whatever this one has.
#include <QComboBox>
#include <QPushButton>
#include <QScrollArea>

#include "app/window/experiment_panel.h"
#include "app/window/run_bar.h"
#include "app/window/runs_panel.h"
#include "tests/app/window_fixture.h"

namespace rat::app {
namespace {

const Device cpu{"cpu", "AVX3 f32", "", {"f32", "bf16", "bf16x3", "bf16x6"}};
const Device gpu{"cuda", "NVIDIA H200, cuBLASLt f32, f32 sums", "", {"f32", "tf32", "bf16x3", "bf16"}};
const Device no_gpu{"cuda", "no GPU, cuBLASLt f32, f32 sums", "no NVIDIA driver is installed", {}};

class DeviceTest : public WindowTest {
 protected:
  static QComboBox& list(ExperimentPanel& form, const QString& name) {
    for (QComboBox* box : form.findChildren<QComboBox*>())
      if (box->accessibleName().startsWith(name)) return *box;
    ADD_FAILURE() << "no list " << name.toStdString();
    return *form.findChild<QComboBox*>();
  }
  static QComboBox& devices_of(ExperimentPanel& form) { return list(form, "Device"); }
  static QComboBox& dtypes_of(ExperimentPanel& form) { return list(form, "Precision"); }
  static void choose(QComboBox& box, const QString& text) {
    const int index = std::max(box.findData(text), box.findText(text));
    ASSERT_GE(index, 0) << text.toStdString();
    box.setCurrentIndex(index);
    emit box.activated(index);
  }
  static std::vector<std::string> texts(const QComboBox& box) {
    std::vector<std::string> all;
    for (int i = 0; i < box.count(); ++i) all.push_back(box.itemText(i).toStdString());
    return all;
  }
  RunSpec gpu_spec() const {
    RunSpec spec = tiny_spec();
    spec.name = "on the GPU";
    spec.device = "cuda";
    spec.train.dtype = "tf32";
    return spec;
  }
  // Both themes, the smallest and a large window.
  void keep_pictures(const std::string& name) {
    for (const ThemeKind kind : {ThemeKind::dark, ThemeKind::light})
      for (const QSize size : {QSize(1280, 800), QSize(2560, 1440)}) {
        window_->set_theme(kind);
        window_->resize(size);
        run_loop(300);
        const QImage image = picture(*window_);
        EXPECT_EQ(image.size(), size * image.devicePixelRatio());
        EXPECT_GT(variance(image), 1.0);
        keep(image, name + (kind == ThemeKind::dark ? "-dark-" : "-light-") + std::to_string(size.width()));
      }
  }
};

TEST_F(DeviceTest, TheGpuIsOfferedByNameAndLandsInTheSpec) {
  MainWindow& window = open({1280, 800}, {cpu, gpu});
  ExperimentPanel& form = window.experiment();
  EXPECT_EQ(texts(devices_of(form)), (std::vector<std::string>{"cpu", "cuda \u00b7 H200"}));
  EXPECT_EQ(texts(dtypes_of(form)), cpu.dtypes);
  EXPECT_EQ(form.spec().device, "cpu");
  choose(devices_of(form), "cuda");
  EXPECT_EQ(form.spec().device, "cuda");
  EXPECT_EQ(texts(dtypes_of(form)), gpu.dtypes);
  choose(dtypes_of(form), "tf32");
  EXPECT_EQ(form.spec().train.dtype, "tf32");
  EXPECT_TRUE(form.valid()) << form.problem().toStdString();
  EXPECT_NE(to_json(form.spec()).find("\"device\":\"cuda\""), std::string::npos);
  EXPECT_TRUE(devices_of(form).toolTip().contains("NVIDIA H200")) << devices_of(form).toolTip().toStdString();
  constexpr int frame = 36;  // padding and arrow
  EXPECT_GE(devices_of(form).width(), devices_of(form).fontMetrics().horizontalAdvance("cuda \u00b7 H200") + frame)
      << "the name is cut";
  keep_pictures("form-cuda");
}

// A dtype that the other device lacks stays chosen, and the form says so: nothing becomes f32 behind one's back.
TEST_F(DeviceTest, ADtypeTheDeviceLacksIsSaid) {
  MainWindow& window = open({1280, 800}, {cpu, gpu});
  ExperimentPanel& form = window.experiment();
  form.set_spec(gpu_spec());
  EXPECT_TRUE(form.valid()) << form.problem().toStdString();
  choose(devices_of(form), "cpu");
  EXPECT_EQ(form.spec().train.dtype, "tf32");
  EXPECT_EQ(dtypes_of(form).currentText().toStdString(), "tf32");
  EXPECT_TRUE(form.note("train").contains("train.dtype is tf32")) << form.note("train").toStdString();
  EXPECT_TRUE(form.is_wrong("train.dtype"));
  EXPECT_FALSE(window.bar().button("start")->isEnabled());
  choose(devices_of(form), "cuda");
  EXPECT_EQ(to_json(form.spec()), to_json(gpu_spec()));
  EXPECT_TRUE(form.valid());
}

TEST_F(DeviceTest, ARunOfAGpuOpensWhereThereIsNone) {
  for (const std::vector<Device>& devices : {std::vector{cpu, no_gpu}, std::vector{cpu}}) {
    MainWindow& window = open({1280, 800}, devices);
    ExperimentPanel& form = window.experiment();
    EXPECT_EQ(texts(devices_of(form)), std::vector<std::string>{"cpu"});
    form.set_spec(gpu_spec());
    EXPECT_EQ(to_json(form.spec()), to_json(gpu_spec())) << "nothing is lost";
    EXPECT_EQ(devices_of(form).currentText().toStdString(), "cuda (not here)");
    EXPECT_EQ(dtypes_of(form).currentText().toStdString(), "tf32");
    const std::string reason = devices.size() > 1 ? no_gpu.problem : "it is no part of this build";
    EXPECT_EQ(form.note("train").toStdString(), "Device is cuda, which cannot compute here (" + reason +
                                                    "); start this where it can, or choose cpu.");
    EXPECT_EQ(form.problem(), form.note("train"));
    run_loop(50);
    const QScrollArea& scroll = *form.findChild<QScrollArea*>();
    const QRect seen(QPoint(0, 0), scroll.viewport()->size());
    const QWidget& list = devices_of(form);
    EXPECT_TRUE(seen.contains(QRect(list.mapTo(scroll.viewport(), QPoint(0, 0)), list.size())))
        << "the form does not show what is wrong";
    EXPECT_TRUE(form.is_wrong("device"));
    EXPECT_TRUE(form.note("data").isEmpty() && form.note("model").isEmpty());
    EXPECT_FALSE(window.bar().button("start")->isEnabled());
    if (devices.size() > 1) keep_pictures("form-cuda-elsewhere");
    choose(devices_of(form), "cpu");
    choose(dtypes_of(form), "f32");
    EXPECT_TRUE(form.valid()) << form.problem().toStdString();
    EXPECT_EQ(form.spec().device, "cpu");
    form.set_spec(tiny_spec());
    EXPECT_EQ(texts(devices_of(form)).front(), "cpu");
    close();
  }
}

// The devices of this machine, through the window as it starts.
TEST_F(DeviceTest, WithoutAListTheFormAsksTheMachine) {
  ExperimentPanel& form = open().experiment();
  for (const Device& device : devices())
    EXPECT_EQ(devices_of(form).findData(QString::fromStdString(device.name)) >= 0, device.problem.empty())
        << device.name;
}

}  // namespace
}  // namespace rat::app
