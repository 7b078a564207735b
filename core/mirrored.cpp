#include "core/mirrored.h"

#include <cstdlib>
#include <memory>
#include <utility>

#include "kernels/base/huge_pages.h"

namespace rat {
namespace {

constexpr std::size_t alignment = 64;

std::size_t bytes_of(int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); }

// Zero pages with room to align.
float* zeros(int64_t count) {
  auto* data = static_cast<float*>(std::calloc(1, bytes_of(count) + alignment));
  if (data == nullptr)
    throw kernels::OutOfMemory(fmt::format("there is no memory for {} bytes", bytes_of(count) + alignment));
  kernels::advise_huge_pages(data, bytes_of(count) + alignment);
  return data;
}

float* aligned(float* data, int64_t count) {
  void* begin = data;
  std::size_t space = bytes_of(count) + alignment;
  return static_cast<float*>(std::align(alignment, bytes_of(count), begin, space));
}

}  // namespace

Mirrored::Mirrored(const kernels::Backend& backend, int64_t count) : backend_(&backend), count_(count), memory_(backend) {
  if (count == 0) return;
  if (backend.host) {
    host_ = zeros(count);
    return;
  }
  auto* data = static_cast<float*>(memory_.ensure(bytes_of(count)));
  const Status status = kernels::zero({.x = kernels::Output(data, 1, count)}, {.backend = backend_});
  if (!status) throw kernels::OutOfMemory(status.error().message);
}

Mirrored::~Mirrored() { std::free(host_); }

Mirrored::Mirrored(Mirrored&& other) noexcept
    : backend_(other.backend_),
      count_(other.count_),
      host_(std::exchange(other.host_, nullptr)),
      memory_(std::move(other.memory_)),
      newer_(other.newer_) {}

std::span<float> Mirrored::device() const {
  if (count_ == 0) return {};
  float* data = backend_->host ? aligned(host_, count_) : static_cast<float*>(memory_.data());
  return {data, static_cast<std::size_t>(count_)};
}

Status Mirrored::prepare() {
  if (newer_ != Side::host) return ok();
  const std::span<float> host(aligned(host_, count_), static_cast<std::size_t>(count_));
  RAT_TRY(kernels::upload({.host = host, .device = device().data()}, {.backend = backend_}));
  newer_ = Side::none;
  return ok();
}

void Mirrored::fetch() const {
  if (backend_->host || (host_ != nullptr && newer_ != Side::device)) return;
  if (host_ == nullptr) host_ = zeros(count_);
  const Status status = kernels::download(
      {.rows = kernels::Input(device().data(), 1, count_), .host = aligned(host_, count_)}, {.backend = backend_});
  if (!status) throw kernels::DeviceFailure(status.error().message);
  newer_ = Side::none;
}

std::span<float> Mirrored::host() {
  if (count_ == 0) return {};
  fetch();
  if (!backend_->host) newer_ = Side::host;
  return {aligned(host_, count_), static_cast<std::size_t>(count_)};
}

std::span<const float> Mirrored::read() const {
  if (count_ == 0) return {};
  fetch();
  return {aligned(host_, count_), static_cast<std::size_t>(count_)};
}

}  // namespace rat
