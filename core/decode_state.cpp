#include "core/decode_state.h"

#include <algorithm>

namespace rat {

DecodeState::DecodeState(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DecodeState::~DecodeState() = default;

int64_t DecodeState::batch() const { return impl_->batch; }
int64_t DecodeState::position() const { return impl_->position; }

int64_t DecodeState::cache_bytes() const {
  int64_t sum = 0;
  for (const auto& layer : impl_->layers) sum += layer->bytes();
  return sum;
}

std::string DecodeState::cache_dtype() const {
  std::vector<std::string_view> names;
  for (const auto& layer : impl_->layers) {
    const std::string_view name = kernels::cache_dtype_name(layer->cache_dtype());
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

Status DecodeState::Impl::check_rows(std::size_t rows, int64_t tokens) const {
  if (batch < 1)
    return fail(ErrorCode::invalid_argument,
                "a decode state of {} sequences cannot be continued; start one of at least 1", batch);
  if (tokens >= 1 && static_cast<int64_t>(rows) == batch * tokens) return ok();
  return fail(ErrorCode::shape_mismatch, "{} tokens are not {} for each of the {} sequences of the decode state", rows,
              tokens, batch);
}

Status DecodeState::restart() {
  for (const auto& layer : impl_->layers) RAT_TRY(layer->clear());
  impl_->position = 0;
  return ok();
}

Result<std::unique_ptr<DecodeState>> DecodeState::repeated(int64_t batch) const {
  if (batch < 1 || impl_->batch != 1)
    return fail(ErrorCode::invalid_argument,
                "a decode state of {} sequences cannot become one of {}; only one of 1 can, one of at least 1",
                impl_->batch, batch);
  auto copy = std::make_unique<Impl>();
  copy->batch = batch;
  copy->position = impl_->position;
  copy->layers_version = impl_->layers_version;
  for (const auto& layer : impl_->layers) {
    RAT_ASSIGN(auto one, layer->repeated(batch));
    copy->layers.push_back(std::move(one));
  }
  return std::make_unique<DecodeState>(std::move(copy));
}

}  // namespace rat
