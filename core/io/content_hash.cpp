#include "core/io/content_hash.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <new>

namespace rat {

struct ContentHash::Impl {
  XXH3_state_t* state = XXH3_createState();
  Impl() {
    if (!state) throw std::bad_alloc();
    XXH3_64bits_reset(state);
  }
  ~Impl() { XXH3_freeState(state); }
};

ContentHash::ContentHash() : impl_(std::make_unique<Impl>()) {}
ContentHash::~ContentHash() = default;

void ContentHash::update(std::span<const float> values) {
  if (!values.empty()) XXH3_64bits_update(impl_->state, values.data(), values.size_bytes());
}

std::string ContentHash::hex() const { return fmt::format("{:016x}", XXH3_64bits_digest(impl_->state)); }

}  // namespace rat
