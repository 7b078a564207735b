#include "kernels/memory/memory.h"

#include <algorithm>
#include <utility>

namespace rat::kernels {

Memory::Memory(Memory&& other) noexcept
    : backend_(other.backend_),
      data_(std::exchange(other.data_, nullptr)),
      capacity_(std::exchange(other.capacity_, 0)) {}

Memory& Memory::operator=(Memory&& other) noexcept {
  if (this == &other) return *this;
  release();
  backend_ = other.backend_;
  data_ = std::exchange(other.data_, nullptr);
  capacity_ = std::exchange(other.capacity_, 0);
  return *this;
}

void Memory::release() {
  if (data_ != nullptr) backend_->release(data_);
  data_ = nullptr;
  capacity_ = 0;
}

void* Memory::ensure(std::size_t bytes) {
  if (bytes <= capacity_) return data_;
  release();
  data_ = backend_->allocate(bytes);
  capacity_ = bytes;
  return data_;
}

void* Memory::grow(std::size_t bytes) {
  if (bytes <= capacity_) return data_;
  Memory bigger(*backend_);
  bigger.ensure(std::max(bytes, capacity_ + capacity_ / 2));
  if (capacity_ > 0) {
    const auto floats = static_cast<int64_t>(capacity_ / sizeof(float));
    const Status status = copy_rows({.x = Input(static_cast<const float*>(data_), 1, floats),
                                     .y = Output(static_cast<float*>(bigger.data_), 1, floats)},
                                    {.backend = backend_});
    RAT_CHECK(bool(status), status.error().message);
  }
  *this = std::move(bigger);
  return data_;
}

Status upload(const UploadArgs& args, const Exec& exec) {
  if (args.host.empty()) return ok();
  if (args.device == nullptr) return fail(ErrorCode::invalid_argument, "upload: the target has no memory");
  return exec.run(&Backend::upload, "upload", args);
}

Status download(const DownloadArgs& args, const Exec& exec) {
  if (args.rows.rows * args.rows.cols == 0) return ok();
  RAT_TRY(expect_shape("download", "rows", args.rows, args.rows.rows, args.rows.cols));
  if (args.host == nullptr) return fail(ErrorCode::invalid_argument, "download: the target has no memory");
  return exec.run(&Backend::download, "download", args);
}

Status zero(const ZeroArgs& args, const Exec& exec) {
  if (args.x.rows * args.x.cols == 0) return ok();
  RAT_TRY(expect_shape("zero", "x", args.x, args.x.rows, args.x.cols));
  return exec.run(&Backend::zero, "zero", args);
}

Status copy_rows(const CopyRowsArgs& args, const Exec& exec) {
  constexpr const char* op = "copy_rows";
  const auto count = args.rows.empty() ? args.x.rows : static_cast<int64_t>(args.rows.size());
  if (count * args.x.cols == 0) return ok();
  RAT_TRY(expect_shape(op, "x", args.x, args.x.rows, args.x.cols));
  RAT_TRY(expect_shape(op, "y", args.y, count, args.x.cols));
  for (const int32_t row : args.rows)
    if (row < 0 || row >= args.x.rows)
      return fail(ErrorCode::shape_mismatch, "{}: row {} of {} rows", op, row, args.x.rows);
  return exec.run(&Backend::copy_rows, op, args);
}

Status widen(const WidenArgs& args, const Exec& exec) {
  if (args.y.rows * args.y.cols == 0) return ok();
  RAT_TRY(expect_shape("widen", "y", args.y, args.y.rows, args.y.cols));
  if (args.x == nullptr) return fail(ErrorCode::invalid_argument, "widen: the source has no memory");
  return exec.run(&Backend::widen, "widen", args);
}

Status finish(const Exec& exec) { return exec.backend->finish(); }

}  // namespace rat::kernels
