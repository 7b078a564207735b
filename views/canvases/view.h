// A canvas: draws what it is given with ImGui and sends commands; it never computes, waits, or touches a model.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/session.h"
#include "views/plots/recipe.h"
#include "views/theme/theme.h"

struct ImFont;  // of Dear ImGui

namespace rat::views {

// One selection for all views. Hover is transient (-1: none); a click pins; Esc clears. UI thread only.
struct Selection {
  int layer = 0;
  int head = 0;
  int64_t query_token = -1, hover_token = -1;
  int64_t key = -1, hover_key = -1;       // chunk or token column of the attention map
  int64_t channel = -1, hover_channel = -1;
  std::vector<std::string> runs;          // selected in the Runs table, newest click last
  void clear_pins() { query_token = key = channel = -1; }
};

// Pixels to a texture: implemented by the window (OpenGL) and by the headless tests.
class TextureStore {
 public:
  virtual ~TextureStore() = default;
  // RGBA8, row 0 at the top; uploads only when `version` differs from the last upload under `key`. Sizes up to 8192.
  virtual void* texture(const std::string& key, uint64_t version, int width, int height, const uint32_t* pixels) = 0;
};

// What a canvas asks the program to do. The window maps these to the sessions and to its actions.
struct CommandSink {
  std::function<void(const ProbeRequest&, int64_t tokens)> set_probes;
  std::function<void(const std::string& prompt, int64_t count, const GenerationConfig&)> generate;
  std::function<void(int64_t count)> generate_more;
  std::function<void()> stop_generation;
  std::function<void(int64_t sample)> show_sample;  // of the generation
  std::function<void(const std::string& text)> set_inspected_text;  // empty: validation text
  std::function<void(std::vector<LayerConfig> layers)> set_layers;  // of the inspected weights; none: as trained
  std::function<void(const std::string& run_id)> open_run;
  std::function<void(const std::string& message)> notify;           // status bar
};

enum class Subject { live, stored };  // whose states and maps: the training run's, or the opened run's

// Everything a canvas may read in one frame. Snapshots are pinned for the frame.
struct Frame {
  Subject subject = Subject::live;
  std::shared_ptr<const TrainingStatus> training;
  std::shared_ptr<const TraceSnapshot> trace;            // of the subject; on the Generate canvas: of the generation
  std::shared_ptr<const InspectStatus> inspect;
  std::shared_ptr<const GenerationStatus> generation;
  std::shared_ptr<const RunRow> stored_run;              // when subject is stored; may be null
  Selection* selection = nullptr;
  CommandSink* commands = nullptr;
  TextureStore* textures = nullptr;
  const Theme* theme = nullptr;
  ImFont* mono = nullptr;                         // tokens
  ImFont* small_caps = nullptr;                   // headings
  float scale = 1.0f;                                    // device pixels per logical pixel
  bool wants_frame = false;                              // set while drawing: something is on its way, draw again soon
};

// Choices a canvas keeps from one start of the program to the next: "scale" = "log".
using Options = std::map<std::string, std::string>;

class View {
 public:
  virtual ~View() = default;
  // Draws into the current ImGui window, which fills the canvas.
  virtual void draw(Frame& frame) = 0;
  // Which values it wants recorded while visible; the window merges and sends them.
  virtual ProbeRequest probes(const Selection& selection, const ModelConfig& model) const = 0;
  virtual int64_t probe_tokens() const { return 512; }
  // What Export would draw: none when there is nothing to show. `trace_file` is filled by the exporter.
  virtual std::optional<Recipe> recipe(const Frame& frame) const = 0;
  virtual Options options() const { return {}; }
  virtual void set_options(const Options& options) { (void)options; }  // unknown keys and values are passed over
  // Ctrl+Left / Right etc.; returns whether it was used. `key` is an ImGuiKey_, or for keys that ImGui 1.86 does not
  // name the capital letter or sign itself: 'L', 'S', '[', ']'.
  virtual bool key_pressed(int key, bool ctrl, bool shift, Frame& frame) { (void)key, (void)ctrl, (void)shift, (void)frame; return false; }
};

struct ViewType {
  std::string_view id, title, shortcut, description;  // "attention", "Attention", "Ctrl+1", one line
  std::unique_ptr<View> (*make)();
};

// THE list of canvases: menus, tabs, shortcuts, the tour and the generic tests follow from it.
const std::vector<ViewType>& view_types();

// One theme for Qt and ImGui. Call after the font atlas is set, and on every theme change.
void apply_theme(const Theme& theme, float scale);

}  // namespace rat::views
