// Reads the pickle of a PyTorch checkpoint as data. A pickle is a program for a stack machine; this reader knows only
// the instructions that build numbers, texts, lists and dictionaries, looks up no module and calls nothing. A name
// outside the allow-list below, or an instruction outside the list in the .cpp, ends the reading with an error that
// names it and its byte.
//
// Stand-ins: collections.OrderedDict and easydict.EasyDict (the published training code stores its config in one)
// become mappings; torch._utils._rebuild_tensor_v2 over a persistent id ('storage', torch.<T>Storage, key, location,
// count) becomes a TensorRef; _rebuild_parameter and torch._tensor._rebuild_from_type_v2 (a tensor with attributes, as
// FSDP writes them) are the tensor in it; torch.Size a tuple; torch.device, torch.Tensor and torch.<dtype> stay names.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/safetensors.h"
#include "kernels/base/status.h"

namespace rat::pickle {

inline constexpr uint64_t max_bytes = uint64_t{64} << 20;
inline constexpr std::size_t max_nodes = 1u << 20;  // values built
inline constexpr std::size_t max_memo = 1u << 20;   // remembered values
inline constexpr std::size_t max_steps = 1u << 23;  // instructions
inline constexpr std::size_t max_items = 1u << 23;  // elements of all lists, tuples and dicts together
inline constexpr std::size_t max_tensors = 1u << 16;
inline constexpr std::size_t max_rank = 64;

enum class Kind : uint8_t { none, boolean, integer, real, text, bytes, list, tuple, mapping, symbol, storage, tensor };

// A value. `items` are indices into Tree::nodes: the elements, or key, value, key, value ... of a mapping.
struct Node {
  Kind kind = Kind::none;
  int64_t integer = 0;  // boolean, integer; tensor: index into Tree::tensors; storage: number of elements
  double real = 0;
  std::string_view text = {};  // text, bytes; symbol: "module name"; storage: its key
  DType dtype = DType::f32;    // storage
  std::vector<uint32_t> items = {};
};

// A view into a storage. Checked: every element it covers lies inside the storage, and it has no more elements.
struct TensorRef {
  DType dtype = DType::f32;
  std::string storage;        // key: letters, digits and '_' only
  int64_t storage_count = 0;  // elements
  int64_t offset = 0;
  std::vector<int64_t> shape, strides;  // elements
  int64_t count = 0;
};

struct Tree {
  std::vector<char> bytes;  // what the texts point into
  std::vector<Node> nodes;
  std::vector<TensorRef> tensors;
  uint32_t root = 0;
};

Result<Tree> read(std::vector<char> bytes);

}  // namespace rat::pickle
