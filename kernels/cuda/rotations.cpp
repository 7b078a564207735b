#include <algorithm>
#include <map>
#include <utility>

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/chunk_scan.h"
#include "kernels/cuda/device.h"
#include "kernels/memory/memory.h"

namespace rat::kernels::gpu {

// By head size and base; made again when a longer sequence comes.
Result<const float2*> rotations(int64_t head_size, double base, int64_t positions) {
  struct Table {
    Memory memory{cuda_backend()};
    int64_t positions = 0;
  };
  if (base == 0) return static_cast<const float2*>(nullptr);
  static thread_local std::map<std::pair<int64_t, double>, Table> tables;
  Table& table = tables[{head_size, base}];
  auto* data =
      static_cast<float2*>(table.memory.ensure(static_cast<std::size_t>(positions * head_size / 2) * sizeof(float2)));
  if (positions > table.positions)
    RAT_TRY(answer(cuda::rope_table(data, positions, head_size, base, stream())));
  table.positions = std::max(positions, table.positions);
  return static_cast<const float2*>(data);
}

}  // namespace rat::kernels::gpu
