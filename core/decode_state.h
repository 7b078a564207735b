// The inside of DecodeState, shared by Model and SingleLayer.
#pragma once

#include <memory>
#include <vector>

#include "core/mixer.h"
#include "core/model.h"

namespace rat {

struct DecodeState::Impl {
  int64_t position = 0;
  uint64_t layers_version = 0;  // of the model that started it
  std::vector<std::unique_ptr<MixerState>> layers;
};

}  // namespace rat
