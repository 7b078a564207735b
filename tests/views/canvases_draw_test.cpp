// Every canvas in the list, drawn headless: empty, loading, full, tiny, huge, with broken numbers, and hovered all
// over.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "tests/views/canvas_harness.h"

namespace rat::views {
namespace {

const ImVec2 outside{-100, -100};

void give_everything(Canvas& canvas) {
  auto status = std::make_shared<TrainingStatus>();
  status->run_id = "run", status->activity = SessionActivity::training;
  status->spec.model = canvas.frame.trace->model;
  status->spec.device = "cuda";
  status->step = 90, status->steps_total = 100;
  for (int i = 0; i < 90; ++i) status->recent_step_ms.push_back(5.0f + static_cast<float>(i % 3));
  status->step_ms_median = 6, status->step_ms_q1 = 5, status->step_ms_q3 = 7;
  status->tokens_per_s_median = 1000, status->tokens_per_s_q1 = 900, status->tokens_per_s_q3 = 1100;
  status->op_ms_per_step[Op::gemm] = 4;
  canvas.frame.training = status;
  auto generation = std::make_shared<GenerationStatus>();
  generation->run_id = "run", generation->tokens = canvas.frame.trace->tokens;
  generation->prompt_tokens = canvas.frame.trace->token_count() / 2;
  generation->next_probabilities.assign(256, 1.0f / 256);
  generation->position = canvas.frame.trace->token_count();
  generation->samples = 3, generation->sample = 1;
  canvas.frame.generation = generation;
}

struct Case {
  const char* layers;
  int64_t tokens, d_model, heads;
  bool bytes;
};
const Case cases[] = {{"rat:16*2", 70, 16, 2, true}, {"attention*2", 40, 16, 2, true}, {"swa:8,rat:4", 33, 16, 4, true},
                      {"rnn*2", 50, 16, 2, true},    {"rat:8", 64, 16, 2, false},      {"rat:16", 1, 16, 2, true},
                      {"rat:1", 20, 2, 1, true},     {"rat:512", 30, 16, 2, true}};

class EveryCanvas : public testing::TestWithParam<std::size_t> {
 protected:
  const ViewType& type() const { return view_types()[GetParam()]; }
};

TEST_P(EveryCanvas, DrawsWithNothingAndWhileLoading) {
  Canvas canvas;
  const auto view = type().make();
  for (const Subject subject : {Subject::live, Subject::stored}) {
    canvas.frame.subject = subject;
    canvas.draw(*view, 900, 600);
    EXPECT_FALSE(view->recipe(canvas.frame).has_value());
  }
  auto inspect = std::make_shared<InspectStatus>();
  inspect->busy = true, inspect->message = "loading step-00000500.safetensors", inspect->message_is_error = true;
  canvas.frame.inspect = inspect;
  canvas.draw(*view, 900, 600);
  // A trace whose layer has not been recorded yet.
  auto bare = full_trace("rat:16*2", 20);
  bare->tensors.clear();
  canvas.frame.trace = bare;
  canvas.draw(*view, 900, 600, {400, 300});
}

TEST_P(EveryCanvas, DrawsEveryKindOfModelAtEverySizeAndScale) {
  for (const Case& one : cases) {
    Canvas canvas;
    const auto view = type().make();
    canvas.frame.trace = full_trace(one.layers, one.tokens, one.d_model, one.heads, one.bytes);
    give_everything(canvas);
    for (const ImVec2 size : {ImVec2(1, 1), ImVec2(30, 700), ImVec2(300, 200), ImVec2(700, 400), ImVec2(2000, 1300)})
      for (const float scale : {1.0f, 2.0f}) {
        canvas.frame.scale = scale;
        for (int layer = 0; layer < static_cast<int>(canvas.frame.trace->model.layers.size()); ++layer) {
          canvas.selection.layer = layer;
          canvas.draw(*view, size.x, size.y, {size.x / 2, size.y / 2});
          if (HasFatalFailure()) return;
        }
      }
  }
}

TEST_P(EveryCanvas, DrawsAcrossTheLargestWindow) {
  Canvas canvas;
  const auto view = type().make();
  canvas.frame.trace = full_trace("rat:16", 70);
  give_everything(canvas);
  canvas.draw(*view, 8192, 4320, {4000, 2000});
}

TEST_P(EveryCanvas, SurvivesHoverClicksAndWheelEverywhere) {
  Canvas canvas;
  const auto view = type().make();
  canvas.frame.trace = full_trace("rat:16,attention,rnn", 70);
  give_everything(canvas);
  for (float x = 5; x < 800; x += 40)
    for (float y = 5; y < 560; y += 35) {
      canvas.draw(*view, 800, 560, {x, y}, static_cast<int>(x + y) % 3 == 0,
                  static_cast<int>(x) % 4 == 0 ? 1.0f : -0.5f);
      if (HasFatalFailure()) return;
      EXPECT_GE(canvas.selection.layer, 0);
      EXPECT_LT(canvas.selection.layer, 3);
      EXPECT_LT(canvas.selection.hover_token, 70);
    }
}

TEST_P(EveryCanvas, DrawsBrokenNumbers) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(), 0.0f}) {
    Canvas canvas;
    const auto view = type().make();
    auto trace = full_trace("rat:4*2", 24);
    for (ProbeTensor& tensor : trace->tensors) std::fill(tensor.values.begin(), tensor.values.end(), bad);
    canvas.frame.trace = trace;
    give_everything(canvas);
    auto generation = std::make_shared<GenerationStatus>(*canvas.frame.generation);
    std::fill(generation->next_probabilities.begin(), generation->next_probabilities.end(), bad);
    canvas.frame.generation = generation;
    for (const ImVec2 mouse : {outside, ImVec2(300, 300), ImVec2(500, 200)}) canvas.draw(*view, 900, 600, mouse);
  }
}

TEST_P(EveryCanvas, BuildsItsTexturesOnce) {
  Canvas canvas;
  const auto view = type().make();
  canvas.frame.trace = full_trace("rat:16,attention", 70);
  give_everything(canvas);
  for (int i = 0; i < 3; ++i) canvas.draw(*view, 900, 700, outside);
  const int before = canvas.textures.uploads;
  for (int i = 0; i < 20; ++i) canvas.draw(*view, 900, 700, {300.0f + static_cast<float>(i), 300});
  EXPECT_EQ(canvas.textures.uploads, before) << "moving the mouse must not rebuild a map";
}

TEST_P(EveryCanvas, AsksOnlyForProbesThatTheLayerHas) {
  const auto view = type().make();
  for (const Case& one : cases) {
    ModelConfig model;
    model.layers = *parse_layers(one.layers);
    for (int layer = -1; layer < 5; ++layer) {
      Selection selection;
      selection.layer = layer;
      for (const ProbeRequest::Item& item : view->probes(selection, model).items) {
        ASSERT_LT(item.layer, static_cast<int>(model.layers.size()));
        bool known = false;
        for (std::size_t i = 0; i < model.layers.size(); ++i) {
          if (item.layer >= 0 && static_cast<std::size_t>(item.layer) != i) continue;
          for (const Probe probe : probes_of(model.layers[i])) known = known || probe == item.probe;
        }
        EXPECT_TRUE(known) << one.layers << " has no " << probe_name(item.probe);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, EveryCanvas, testing::Range<std::size_t>(0, view_types().size()),
                         [](const testing::TestParamInfo<std::size_t>& info) {
                           return std::string(view_types()[info.param].title);
                         });

TEST(ViewList, HasTheFourCanvasesWithShortcutsThatDoNotClash) {
  std::set<std::string_view> ids, titles, shortcuts;
  for (const ViewType& type : view_types()) {
    EXPECT_TRUE(ids.insert(type.id).second) << type.id;
    EXPECT_TRUE(titles.insert(type.title).second) << type.title;
    EXPECT_TRUE(shortcuts.insert(type.shortcut).second) << type.shortcut;
    EXPECT_FALSE(type.description.empty());
  }
  EXPECT_EQ(ids, (std::set<std::string_view>{"attention", "states", "throughput", "generate"}));
}

}  // namespace
}  // namespace rat::views
