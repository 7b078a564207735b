#include "core/decode_state.h"

namespace rat {

DecodeState::DecodeState(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DecodeState::~DecodeState() = default;

int64_t DecodeState::position() const { return impl_->position; }

int64_t DecodeState::cache_bytes() const {
  int64_t sum = 0;
  for (const auto& layer : impl_->layers) sum += layer->bytes();
  return sum;
}

}  // namespace rat
