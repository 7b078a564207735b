#include "core/io/pickle_globals.h"

#include <algorithm>
#include <array>

namespace rat::pickle {
namespace {

enum class Role : uint8_t { mapping, tensor, typed_tensor, parameter, size, name };
struct Global {
  std::string_view name;  // "module name"
  Role role;
};
constexpr std::array globals{Global{"collections OrderedDict", Role::mapping},
                             Global{"easydict EasyDict", Role::mapping},
                             Global{"torch._utils _rebuild_tensor_v2", Role::tensor},
                             Global{"torch._tensor _rebuild_from_type_v2", Role::typed_tensor},
                             Global{"torch._utils _rebuild_parameter", Role::parameter},
                             Global{"torch Tensor", Role::name},
                             Global{"torch Size", Role::size},
                             Global{"torch device", Role::name},
                             Global{"torch float32", Role::name},
                             Global{"torch float64", Role::name},
                             Global{"torch float16", Role::name},
                             Global{"torch bfloat16", Role::name},
                             Global{"torch int64", Role::name},
                             Global{"torch int32", Role::name},
                             Global{"torch int16", Role::name},
                             Global{"torch int8", Role::name},
                             Global{"torch uint8", Role::name},
                             Global{"torch bool", Role::name},
                             Global{"torch strided", Role::name}};

struct Storage {
  std::string_view name;
  DType dtype;
};
constexpr std::array storages{Storage{"torch FloatStorage", DType::f32}, Storage{"torch DoubleStorage", DType::f64},
                              Storage{"torch HalfStorage", DType::f16},  Storage{"torch BFloat16Storage", DType::bf16},
                              Storage{"torch LongStorage", DType::i64},  Storage{"torch IntStorage", DType::i32},
                              Storage{"torch ShortStorage", DType::i16}, Storage{"torch CharStorage", DType::i8},
                              Storage{"torch ByteStorage", DType::u8},   Storage{"torch BoolStorage", DType::boolean}};

constexpr std::array<std::string_view, 12> kind_names{"None", "bool",  "int",  "float",         "str",     "bytes",
                                                      "list", "tuple", "dict", "a Python name", "storage", "tensor"};

bool is(const Tree& tree, uint32_t node, Kind kind) { return tree.nodes[node].kind == kind; }

bool is_plain_key(std::string_view key) {
  return !key.empty() && key.size() <= 64 && std::ranges::all_of(key, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  });
}

Result<std::vector<int64_t>> dimensions(const Tree& tree, uint32_t node, std::string_view what) {
  if (!is(tree, node, Kind::tuple)) return fail(ErrorCode::corrupt_data, "has a tensor whose {} is no tuple", what);
  const auto& items = tree.nodes[node].items;
  if (items.size() > max_rank)
    return fail(ErrorCode::corrupt_data, "has a tensor of {} dimensions; at most {} are read", items.size(), max_rank);
  std::vector<int64_t> values;
  for (const uint32_t item : items) {
    if (!is(tree, item, Kind::integer) || tree.nodes[item].integer < 0)
      return fail(ErrorCode::corrupt_data, "has a tensor whose {} is not a count", what);
    values.push_back(tree.nodes[item].integer);
  }
  return values;
}

// The tensor may not have more elements than its storage, nor touch one beyond it.
Status check_bounds(TensorRef& tensor) {
  tensor.count = std::ranges::find(tensor.shape, 0) == tensor.shape.end() ? 1 : 0;
  int64_t last = tensor.offset;
  bool fits = true;
  for (std::size_t i = 0; fits && tensor.count > 0 && i < tensor.shape.size(); ++i) {
    int64_t reach = 0;
    fits = !__builtin_mul_overflow(tensor.count, tensor.shape[i], &tensor.count) &&
           !__builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &reach) &&
           !__builtin_add_overflow(last, reach, &last) && tensor.count <= tensor.storage_count;
  }
  if (fits && (tensor.count == 0 || last < tensor.storage_count)) return ok();
  return fail(ErrorCode::corrupt_data,
              "has a tensor of shape [{}], strides [{}] and offset {} that does not lie in its storage of {} elements",
              fmt::join(tensor.shape, ", "), fmt::join(tensor.strides, ", "), tensor.offset, tensor.storage_count);
}

// _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])
Result<Node> tensor_of(Tree& tree, std::span<const uint32_t> arguments) {
  if (arguments.size() < 6 || arguments.size() > 7 || !is(tree, arguments[0], Kind::storage) ||
      !is(tree, arguments[1], Kind::integer) || tree.nodes[arguments[1]].integer < 0)
    return fail(ErrorCode::corrupt_data, "rebuilds a tensor from something that is not a storage with an offset");
  const Node& storage = tree.nodes[arguments[0]];
  TensorRef tensor;
  tensor.dtype = storage.dtype;
  tensor.storage = storage.text;
  tensor.storage_count = storage.integer;
  tensor.offset = tree.nodes[arguments[1]].integer;
  RAT_ASSIGN(tensor.shape, dimensions(tree, arguments[2], "shape"));
  RAT_ASSIGN(tensor.strides, dimensions(tree, arguments[3], "list of strides"));
  if (tensor.shape.size() != tensor.strides.size())
    return fail(ErrorCode::corrupt_data, "has a tensor of {} dimensions with {} strides", tensor.shape.size(),
                tensor.strides.size());
  RAT_TRY(check_bounds(tensor));
  if (tree.tensors.size() == max_tensors) return fail(ErrorCode::corrupt_data, "has more than {} tensors", max_tensors);
  Node node{.kind = Kind::tensor};
  node.integer = static_cast<int64_t>(tree.tensors.size());
  tree.tensors.push_back(std::move(tensor));
  return node;
}

// _rebuild_from_type_v2(_rebuild_tensor_v2, torch.Tensor, arguments, attributes): a tensor that somebody gave Python
// attributes, as FullyShardedDataParallel does with every tensor of its state dict. They are dropped.
Result<Node> typed_tensor_of(Tree& tree, std::span<const uint32_t> arguments) {
  const auto names = [&](std::size_t i, std::string_view name) {
    return is(tree, arguments[i], Kind::symbol) && tree.nodes[arguments[i]].text == name;
  };
  if (arguments.size() != 4 || !names(0, "torch._utils _rebuild_tensor_v2") || !names(1, "torch Tensor") ||
      !is(tree, arguments[2], Kind::tuple))
    return fail(ErrorCode::corrupt_data, "rebuilds something else than a plain tensor with attributes");
  return tensor_of(tree, tree.nodes[arguments[2]].items);
}

// OrderedDict() or OrderedDict([(key, value), ...]).
Result<Node> mapping_of(const Tree& tree, std::span<const uint32_t> arguments) {
  Node node{.kind = Kind::mapping};
  if (arguments.empty()) return node;
  if (arguments.size() == 1 && is(tree, arguments[0], Kind::mapping)) return tree.nodes[arguments[0]];
  if (arguments.size() != 1 || !is(tree, arguments[0], Kind::list))
    return fail(ErrorCode::corrupt_data, "makes a dict from something that is not a list of pairs");
  for (const uint32_t pair : tree.nodes[arguments[0]].items) {
    const Node& entry = tree.nodes[pair];
    if ((entry.kind != Kind::tuple && entry.kind != Kind::list) || entry.items.size() != 2)
      return fail(ErrorCode::corrupt_data, "makes a dict from something that is not a list of pairs");
    node.items.insert(node.items.end(), entry.items.begin(), entry.items.end());
  }
  return node;
}

}  // namespace

std::optional<std::string_view> find_global(std::string_view module, std::string_view name) {
  const auto matches = [&](std::string_view known) {
    return known.size() == module.size() + 1 + name.size() && known.starts_with(module) &&
           known[module.size()] == ' ' && known.ends_with(name);
  };
  for (const Global& global : globals)
    if (matches(global.name)) return global.name;
  for (const Storage& storage : storages)
    if (matches(storage.name)) return storage.name;
  return std::nullopt;
}

Result<std::variant<Node, uint32_t>> construct(Tree& tree, std::string_view global,
                                               std::span<const uint32_t> arguments) {
  using Made = std::variant<Node, uint32_t>;
  const auto found = std::ranges::find(globals, global, &Global::name);
  const Role role = found == globals.end() ? Role::name : found->role;
  if (role == Role::mapping) {
    RAT_ASSIGN(Node node, mapping_of(tree, arguments));
    return Made(std::move(node));
  }
  if (role == Role::tensor) {
    RAT_ASSIGN(Node node, tensor_of(tree, arguments));
    return Made(std::move(node));
  }
  if (role == Role::typed_tensor) {
    RAT_ASSIGN(Node node, typed_tensor_of(tree, arguments));
    return Made(std::move(node));
  }
  if (role == Role::parameter && !arguments.empty() && is(tree, arguments[0], Kind::tensor)) return Made(arguments[0]);
  if (role == Role::size && arguments.size() == 1 && is(tree, arguments[0], Kind::tuple)) return Made(arguments[0]);
  if (global == "torch device") {
    Node node{.kind = Kind::symbol};
    node.text = global;
    return Made(std::move(node));
  }
  return fail(ErrorCode::corrupt_data, "calls '{}' with arguments it does not take", global);
}

Result<Node> storage_of(const Tree& tree, uint32_t id) {
  const Node& tuple = tree.nodes[id];
  const auto& items = tuple.items;
  const bool well_formed = tuple.kind == Kind::tuple && items.size() == 5 && is(tree, items[0], Kind::text) &&
                           tree.nodes[items[0]].text == "storage" && is(tree, items[1], Kind::symbol) &&
                           is(tree, items[2], Kind::text) && is(tree, items[3], Kind::text) &&
                           is(tree, items[4], Kind::integer);
  if (!well_formed) return fail(ErrorCode::corrupt_data, "refers to something that is not a tensor storage");
  const std::string_view type = tree.nodes[items[1]].text, key = tree.nodes[items[2]].text;
  const auto storage = std::ranges::find(storages, type, &Storage::name);
  if (storage == storages.end())
    return fail(ErrorCode::corrupt_data, "has a storage of the type '{}'", printable(type));
  if (!is_plain_key(key))
    return fail(ErrorCode::corrupt_data, "has a storage with the key '{}', which is not a plain name", printable(key));
  const int64_t count = tree.nodes[items[4]].integer;
  if (count < 0 || count > (int64_t{1} << 48))
    return fail(ErrorCode::corrupt_data, "has a storage of {} elements", count);
  Node node{.kind = Kind::storage};
  node.integer = count;
  node.text = key;
  node.dtype = storage->dtype;
  return node;
}

std::string_view kind_name(Kind kind) { return kind_names[static_cast<std::size_t>(kind)]; }

std::string instruction_name(uint8_t op) {
  struct Named {
    uint8_t op;
    std::string_view name;
  };
  constexpr std::array named{Named{'i', "INST"},
                             Named{'o', "OBJ"},
                             Named{'P', "PERSID"},
                             Named{0x82, "EXT1"},
                             Named{0x83, "EXT2"},
                             Named{0x84, "EXT4"},
                             Named{0x92, "NEWOBJ_EX"},
                             Named{'2', "DUP"},
                             Named{'I', "INT"},
                             Named{'L', "LONG"},
                             Named{'F', "FLOAT"},
                             Named{'S', "STRING"},
                             Named{'T', "BINSTRING"},
                             Named{'U', "SHORT_BINSTRING"},
                             Named{'V', "UNICODE"},
                             Named{'p', "PUT"},
                             Named{'g', "GET"},
                             Named{0x8b, "LONG4"},
                             Named{0x8e, "BINBYTES8"},
                             Named{0x8f, "EMPTY_SET"},
                             Named{0x90, "ADDITEMS"},
                             Named{0x91, "FROZENSET"},
                             Named{0x96, "BYTEARRAY8"},
                             Named{0x97, "NEXT_BUFFER"},
                             Named{0x98, "READONLY_BUFFER"},
                             Named{'l', "LIST"},
                             Named{'d', "DICT"}};
  for (const Named& one : named)
    if (one.op == op) return std::string(one.name);
  return fmt::format("0x{:02x}", op);
}

std::string printable(std::string_view text) {
  std::string shown;
  for (const char c : text.substr(0, 80)) shown += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return text.size() > 80 ? shown + "..." : shown;
}

}  // namespace rat::pickle
