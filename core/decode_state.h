// The inside of DecodeState, shared by Model and SingleLayer.
#pragma once

#include <memory>
#include <vector>

#include "core/mixer.h"
#include "core/model.h"
#include "kernels/recording/repeated_work.h"

namespace rat {

struct DecodeState::Impl {
  int64_t batch = 1;
  int64_t position = 0;         // of every sequence
  uint64_t layers_version = 0;  // of the model that started it
  std::vector<std::unique_ptr<MixerState>> layers;
  kernels::RepeatedWork step;   // what a step starts

  // What `step` depends on besides the addresses of this state and of its model.
  static kernels::RepeatedWork::Key key_of(const MixerPass& pass, const float* in, const float* out) {
    return {static_cast<int64_t>(pass.dtype), pass.cache_dtype ? static_cast<int64_t>(*pass.cache_dtype) : -1,
            reinterpret_cast<int64_t>(in), reinterpret_cast<int64_t>(out)};
  }
  // That `rows` rows are `tokens` for each sequence of a state that has any.
  Status check_rows(std::size_t rows, int64_t tokens) const;
};

}  // namespace rat
