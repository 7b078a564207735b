#include "views/canvases/view.h"

namespace rat::views {

std::unique_ptr<View> make_attention_view();
std::unique_ptr<View> make_states_view();
std::unique_ptr<View> make_throughput_view();
std::unique_ptr<View> make_generate_view();

const std::vector<ViewType>& view_types() {
  static const std::vector<ViewType> types{
      {"attention", "Attention", "Ctrl+1", "Where each query token looks: chunk map or token map, by layer and head",
       &make_attention_view},
      {"states", "States", "Ctrl+2", "What the recurrence holds: gates, running keys and values, half-lives",
       &make_states_view},
      {"throughput", "Throughput", "Ctrl+3", "Speed, step time, time per operation, memory against the cost model",
       &make_throughput_view},
      {"generate", "Generate", "Ctrl+4", "Prompt in, tokens out, one at a time; states and attention follow",
       &make_generate_view},
  };
  return types;
}

}  // namespace rat::views
