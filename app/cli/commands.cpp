#include "app/cli/commands.h"

#include <array>

namespace rat::cli {

std::span<const Command> commands() {
  static constexpr std::array list{
      Command{"train", "Train one model and keep the run", add_train},
      Command{"sweep", "Train a grid of models; finished points are not run again", add_sweep},
      Command{"eval", "Measure a run's checkpoint on validation data", add_eval},
      Command{"generate", "Continue a prompt with a trained run", add_generate},
      Command{"inspect", "Save gates, states and attention maps of a text", add_inspect},
      Command{"import", "Take over weights made elsewhere: safetensors, PyTorch .pt", add_import},
      Command{"export", "Write a run's weights for other programs", add_export},
      Command{"runs", "List, show, compare, delete, merge and back up runs", add_runs},
      Command{"presets", "List the named layer stacks for model.layers", add_presets},
      Command{"figure", "Draw curves, trade-offs and speeds from stored runs", add_figure},
      Command{"bench", "Time a layer, a model or decoding on random data", add_bench},
      Command{"verify", "Check every computation against golden tensors", add_verify},
      Command{"doctor", "Say what this machine can do and what is missing", add_doctor},
  };
  return list;
}

}  // namespace rat::cli
