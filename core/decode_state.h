// The inside of DecodeState, shared by Model and SingleLayer.
#pragma once

#include <memory>
#include <vector>

#include "core/mixer.h"
#include "core/model.h"

namespace rat {

struct DecodeState::Impl {
  int64_t position = 0;
  std::vector<std::unique_ptr<MixerState>> layers;
};

}  // namespace rat
