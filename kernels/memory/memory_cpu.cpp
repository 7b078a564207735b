#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "kernels/base/huge_pages.h"
#include "kernels/cpu_ops.h"
#include "kernels/memory/memory.h"

namespace rat::kernels::cpu {
namespace {

constexpr std::align_val_t alignment{64};

}  // namespace

void* allocate(std::size_t bytes) {
  void* data = ::operator new(bytes, alignment, std::nothrow);
  if (data == nullptr) throw OutOfMemory(fmt::format("there is no memory for {} more bytes; use a smaller model, batch or sequence length", bytes));
  advise_huge_pages(data, bytes);
  return data;
}

void release(void* data) { ::operator delete(data, alignment); }

Status finish() { return ok(); }

Status upload(const UploadArgs& args) {
  std::copy(args.host.begin(), args.host.end(), args.device);
  return ok();
}

Status download(const DownloadArgs& args) {
  for (int64_t i = 0; i < args.rows.rows; ++i)
    std::copy_n(args.rows.row(i), args.rows.cols, args.host + i * args.rows.cols);
  return ok();
}

Status zero(const ZeroArgs& args) {
  for (int64_t i = 0; i < args.x.rows; ++i)
    std::memset(args.x.row(i), 0, static_cast<std::size_t>(args.x.cols) * sizeof(float));
  return ok();
}

Status copy_rows(const CopyRowsArgs& args) {
  for (int64_t i = 0; i < args.y.rows; ++i)
    std::copy_n(args.x.row(args.rows.empty() ? i : args.rows[static_cast<std::size_t>(i)]), args.x.cols,
                args.y.row(i));
  return ok();
}

Status widen(const WidenArgs& args) {
  for (int64_t i = 0; i < args.y.rows; ++i)
    std::transform(args.x + i * args.y.cols, args.x + (i + 1) * args.y.cols, args.y.row(i),
                   [](uint16_t x) { return std::bit_cast<float>(uint32_t{x} << 16); });
  return ok();
}

}  // namespace rat::kernels::cpu
