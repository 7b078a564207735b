#include "tests/views/canvas_harness.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace rat::views {

void* MemoryTextures::texture(const std::string& key, uint64_t version, int width, int height, const uint32_t* pixels) {
  EXPECT_TRUE(width >= 1 && width <= 8192 && height >= 1 && height <= 8192) << key << " " << width << " x " << height;
  Stored& entry = stored[key];
  if (entry.pixels.empty() || entry.version != version || entry.width != width || entry.height != height) {
    entry = {
        version, width, height, {pixels, pixels + static_cast<std::size_t>(width) * static_cast<std::size_t>(height)}};
    ++uploads;
  }
  return &entry;
}

Canvas::Canvas() {
  ImGui::CreateContext();
  ImGuiIO& io = ImGui::GetIO();
  io.IniFilename = nullptr;
  for (int key = 0; key < ImGuiKey_COUNT; ++key) io.KeyMap[key] = key;
  unsigned char* pixels = nullptr;
  int width = 0, height = 0;
  io.Fonts->GetTexDataAsRGBA32(&pixels, &width, &height);
  apply_theme(theme(ThemeKind::dark), 1);
  frame.training = std::make_shared<TrainingStatus>();
  frame.inspect = std::make_shared<InspectStatus>();
  frame.generation = std::make_shared<GenerationStatus>();
  frame.trace = std::make_shared<TraceSnapshot>();
  frame.selection = &selection;
  frame.commands = &commands;
  frame.textures = &textures;
  frame.theme = &theme(ThemeKind::dark);
}

Canvas::~Canvas() { ImGui::DestroyContext(); }

void Canvas::draw(View& view, float width, float height, ImVec2 mouse, bool mouse_down, float wheel) {
  ImGuiIO& io = ImGui::GetIO();
  io.DisplaySize = {width, height};
  io.DeltaTime = 1.0f / 60;
  io.MousePos = mouse;
  io.MouseDown[0] = mouse_down;
  io.MouseWheel = wheel;
  ImGui::NewFrame();
  ImGui::SetNextWindowPos({0, 0});
  ImGui::SetNextWindowSize({width, height});
  ImGui::Begin("canvas", nullptr,
               ImGuiWindowFlags_NoDecoration | ImGuiWindowFlags_NoMove | ImGuiWindowFlags_NoSavedSettings);
  view.draw(frame);
  ImGui::End();
  ImGui::Render();
  const ImDrawData* data = ImGui::GetDrawData();
  for (int i = 0; i < data->CmdListsCount; ++i)
    for (const ImDrawVert& vertex : data->CmdLists[i]->VtxBuffer)
      ASSERT_TRUE(std::isfinite(vertex.pos.x) && std::isfinite(vertex.pos.y))
          << "a vertex that is nowhere, window " << width << " x " << height;
}

float state_value(int64_t token, int64_t channel) {
  return 0.25f * std::sin(0.7f * static_cast<float>(token)) + 0.01f * static_cast<float>(channel) - 0.05f;
}

namespace {

void add_attention(TraceSnapshot& trace, int layer, const LayerConfig& config, int64_t heads) {
  const int64_t tokens = trace.token_count(), chunk = std::min(config.chunk, tokens);
  const int64_t keys = config.kind == "rat" ? (tokens + chunk - 1) / chunk + 1 : tokens;
  const float masked = std::numeric_limits<float>::quiet_NaN();
  ProbeTensor map{Probe::attention,
                  layer,
                  {heads, tokens, keys},
                  std::vector<float>(static_cast<std::size_t>(heads * tokens * keys), masked)};
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t k = 0; k < keys; ++k) {
        const bool visible = config.kind == "rat" ? k < t / chunk || k == keys - 1
                                                  : k <= t && (config.kind != "swa" || t - k <= config.window);
        if (visible)
          map.values[static_cast<std::size_t>((h * tokens + t) * keys + k)] =
              1.0f / static_cast<float>(1 + h + t % 7 + 3 * k);
      }
  const int64_t rows = std::min<int64_t>(48, tokens), cols = std::min<int64_t>(48, keys);
  trace.tensors.push_back({Probe::attention_overview,
                           layer,
                           {heads, rows, cols},
                           std::vector<float>(static_cast<std::size_t>(heads * rows * cols), 0.1f)});
  trace.tensors.push_back(
      {Probe::attention_entropy, layer, {heads}, std::vector<float>(static_cast<std::size_t>(heads), 1.5f)});
  trace.tensors.push_back(std::move(map));
}

}  // namespace

std::shared_ptr<TraceSnapshot> full_trace(const std::string& layers, int64_t tokens, int64_t d_model, int64_t heads,
                                          bool byte_tokens) {
  auto trace = std::make_shared<TraceSnapshot>();
  static uint64_t serial = 0;
  trace->serial = ++serial;
  trace->run_id = "run";
  trace->step = 12;
  trace->source = "test";
  trace->kernel_path = "probe pass";
  trace->byte_tokens = byte_tokens;
  trace->model.d_model = d_model, trace->model.heads = heads, trace->model.vocab = byte_tokens ? 256 : 8192;
  trace->model.layers = *parse_layers(layers);
  for (int64_t t = 0; t < tokens; ++t)
    trace->tokens.push_back(static_cast<int32_t>(byte_tokens ? (t * 37) % 256 : (t * 371) % 8192));
  for (int layer = 0; layer < static_cast<int>(trace->model.layers.size()); ++layer) {
    const LayerConfig& config = trace->model.layers[static_cast<std::size_t>(layer)];
    bool attends = false;
    for (const Probe probe : probes_of(config)) {
      if (probe == Probe::attention) attends = true;
      if (probe == Probe::attention || probe == Probe::attention_overview || probe == Probe::attention_entropy ||
          probe == Probe::logits)
        continue;
      ProbeTensor tensor{probe, layer, {tokens, d_model}, {}};
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t c = 0; c < d_model; ++c)
          tensor.values.push_back(probe == Probe::gate || probe == Probe::out_gate
                                      ? static_cast<float>(c + 1) / static_cast<float>(d_model + 1)
                                      : state_value(t, c));
      trace->tensors.push_back(std::move(tensor));
    }
    if (attends) add_attention(*trace, layer, config, heads);
  }
  return trace;
}

}  // namespace rat::views
