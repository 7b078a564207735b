#include "core/io/pickle_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <utility>

#include "core/io/pickle_globals.h"
#include "core/io/pickle_ops.h"

namespace rat::pickle {
namespace {

class Machine {
 public:
  explicit Machine(std::vector<char> bytes) { tree_.bytes = std::move(bytes); }

  Result<Tree> run() {
    for (std::size_t steps = 0;; ++steps) {
      if (steps == max_steps) return broken("has more than {} instructions", max_steps);
      start_ = at_;
      RAT_ASSIGN(const uint8_t op, number<uint8_t>());
      if (steps == 0 && op != op_proto) return broken("does not begin with a protocol number");
      if (op == op_stop) break;
      RAT_TRY(execute(op));
    }
    if (stack_.size() != 1 || !marks_.empty()) return broken("ends with {} values instead of one", stack_.size());
    tree_.root = stack_.back();
    return std::move(tree_);
  }

 private:
  // Half a sentence: TorchFile puts the file's name before it.
  template <class... Args>
  Error broken(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(ErrorCode::corrupt_data, "{} (byte {} of its pickle)", fmt::format(format, std::forward<Args>(args)...),
                start_);
  }

  // --- reading bytes
  Result<std::string_view> take(uint64_t count) {
    if (count > tree_.bytes.size() - at_) return broken("ends inside an instruction");
    const std::string_view taken(tree_.bytes.data() + at_, count);
    at_ += count;
    return taken;
  }
  template <class Number>
  Result<Number> number() {
    RAT_ASSIGN(const std::string_view raw, take(sizeof(Number)));
    Number value;
    std::memcpy(&value, raw.data(), sizeof value);  // little-endian, as this machine (see safetensors.cpp)
    return value;
  }
  Result<std::string_view> line() {
    const auto begin = tree_.bytes.begin() + static_cast<std::ptrdiff_t>(at_);
    const auto limit = begin + std::min<std::ptrdiff_t>(256, tree_.bytes.end() - begin);
    const auto end = std::find(begin, limit, '\n');
    if (end == limit) return broken("has a name without an end");
    const std::string_view text(tree_.bytes.data() + at_, static_cast<std::size_t>(end - begin));
    at_ += text.size() + 1;
    return text;
  }

  // --- values and the stack
  Status push(Node node) {
    if (tree_.nodes.size() == max_nodes) return broken("holds more than {} values", max_nodes);
    RAT_TRY(count_items(node.items.size()));
    tree_.nodes.push_back(std::move(node));
    stack_.push_back(static_cast<uint32_t>(tree_.nodes.size() - 1));
    return ok();
  }
  Status count_items(std::size_t more) {
    items_ += more;
    if (items_ > max_items) return broken("holds more than {} list and dict elements", max_items);
    return ok();
  }
  Result<uint32_t> pop() {
    const std::size_t floor = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() <= floor) return broken("takes a value that is not there");
    const uint32_t value = stack_.back();
    stack_.pop_back();
    return value;
  }
  Result<uint32_t> top() {
    RAT_ASSIGN(const uint32_t value, pop());
    stack_.push_back(value);
    return value;
  }
  // The values above the last mark.
  Result<std::vector<uint32_t>> pop_to_mark() {
    if (marks_.empty()) return broken("closes a group that was not opened");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<uint32_t> values(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return values;
  }

  Status execute(uint8_t op) {
    for (const auto group : {&Machine::literal, &Machine::container, &Machine::memory, &Machine::object}) {
      RAT_ASSIGN(const bool done, (this->*group)(op));
      if (done) return ok();
    }
    return broken("uses the pickle instruction {}, which tensors do not need and this reader does not run",
                  instruction_name(op));
  }
  Status push_text(Kind kind, uint64_t size) {
    RAT_ASSIGN(const std::string_view text, take(size));
    Node node{.kind = kind};
    node.text = text;
    return push(std::move(node));
  }
  Status push_integer(int64_t value, Kind kind = Kind::integer) {
    Node node{.kind = kind};
    node.integer = value;
    return push(std::move(node));
  }
  Status literal_of_size(uint8_t op) {
    const Kind kind = op == op_bytes1 || op == op_bytes4 ? Kind::bytes : Kind::text;
    uint64_t size = 0;
    if (op == op_text1 || op == op_bytes1) {
      RAT_ASSIGN(size, number<uint8_t>());
    } else if (op == op_text8) {
      RAT_ASSIGN(size, number<uint64_t>());
    } else {
      RAT_ASSIGN(size, number<uint32_t>());
    }
    return push_text(kind, size);
  }
  Status push_long() {
    RAT_ASSIGN(const uint8_t size, number<uint8_t>());
    RAT_ASSIGN(const std::string_view raw, take(size));
    if (size > 8) return broken("holds a whole number of {} bytes; at most 8 are read", size);
    uint64_t value = size > 0 && (raw.back() & 0x80) ? ~uint64_t{0} : 0;  // two's complement
    for (std::size_t i = size; i-- > 0;) value = value << 8 | static_cast<uint8_t>(raw[i]);
    return push_integer(static_cast<int64_t>(value));
  }
  Status push_float() {
    RAT_ASSIGN(const uint64_t big_endian, number<uint64_t>());
    Node node{.kind = Kind::real};
    node.real = std::bit_cast<double>(__builtin_bswap64(big_endian));
    return push(std::move(node));
  }

  Result<bool> literal(uint8_t op) {
    switch (op) {
      case op_proto: {
        RAT_ASSIGN(const uint8_t version, number<uint8_t>());
        if (version < 2 || version > 5) return broken("is written in pickle protocol {}; 2 to 5 are read", version);
        return true;
      }
      case op_frame: {
        RAT_ASSIGN(const uint64_t size, number<uint64_t>());
        if (size > tree_.bytes.size() - at_) return broken("announces a frame of {} bytes, more than there are", size);
        return true;
      }
      case op_none:
        return done(push({}));
      case op_true:
        return done(push_integer(1, Kind::boolean));
      case op_false:
        return done(push_integer(0, Kind::boolean));
      case op_int1:
        return done(push_number<uint8_t>());
      case op_int2:
        return done(push_number<uint16_t>());
      case op_int4:
        return done(push_number<int32_t>());
      case op_long1:
        return done(push_long());
      case op_float:
        return done(push_float());
      case op_text1:
      case op_text4:
      case op_text8:
      case op_bytes1:
      case op_bytes4:
        return done(literal_of_size(op));
      default:
        return false;
    }
  }
  static Result<bool> done(const Status& status) {
    if (!status) return status.error();
    return true;
  }
  template <class Number>
  Status push_number() {
    RAT_ASSIGN(const Number value, number<Number>());
    return push_integer(value);
  }

  Status push_items(Kind kind, std::vector<uint32_t> items) {
    Node node{.kind = kind};
    node.items = std::move(items);
    return push(std::move(node));
  }
  Status push_tuple_of(std::size_t size) {
    std::vector<uint32_t> items(size);
    for (std::size_t i = size; i-- > 0;) {
      RAT_ASSIGN(items[i], pop());
    }
    return push_items(Kind::tuple, std::move(items));
  }
  Status push_marked_tuple() {
    RAT_ASSIGN(std::vector<uint32_t> items, pop_to_mark());
    return push_items(Kind::tuple, std::move(items));
  }

  // Appends to the list, or sets keys of the mapping, that is now on top.
  Status extend(const std::vector<uint32_t>& values, Kind kind) {
    RAT_ASSIGN(const uint32_t target, top());
    Node& node = tree_.nodes[target];
    if (node.kind != kind) return broken("puts an item into something that is not a {}", kind_name(kind));
    if (kind == Kind::mapping && values.size() % 2 != 0) return broken("has a key without a value");
    RAT_TRY(count_items(values.size()));
    node.items.insert(node.items.end(), values.begin(), values.end());
    return ok();
  }
  Status extend_marked(Kind kind) {
    RAT_ASSIGN(const std::vector<uint32_t> values, pop_to_mark());
    return extend(values, kind);
  }
  Status extend_by(std::size_t count, Kind kind) {
    std::vector<uint32_t> values(count);
    for (std::size_t i = count; i-- > 0;) {
      RAT_ASSIGN(values[i], pop());
    }
    return extend(values, kind);
  }

  Result<bool> container(uint8_t op) {
    switch (op) {
      case op_mark:
        marks_.push_back(stack_.size());
        return true;
      case op_empty_dict:
        return done(push_items(Kind::mapping, {}));
      case op_empty_list:
        return done(push_items(Kind::list, {}));
      case op_empty_tuple:
        return done(push_items(Kind::tuple, {}));
      case op_tuple:
        return done(push_marked_tuple());
      case op_tuple1:
        return done(push_tuple_of(1));
      case op_tuple2:
        return done(push_tuple_of(2));
      case op_tuple3:
        return done(push_tuple_of(3));
      case op_append:
        return done(extend_by(1, Kind::list));
      case op_appends:
        return done(extend_marked(Kind::list));
      case op_set_item:
        return done(extend_by(2, Kind::mapping));
      case op_set_items:
        return done(extend_marked(Kind::mapping));
      default:
        return false;
    }
  }

  Status remember(uint64_t index) {
    if (index >= max_memo) return broken("remembers a value under the number {}; at most {} are kept", index, max_memo);
    RAT_ASSIGN(const uint32_t value, top());
    if (memo_.size() <= index) memo_.resize(index + 1);
    memo_[index] = value;
    remembered_ = std::max(remembered_, index + 1);
    return ok();
  }
  Status recall(uint64_t index) {
    if (index >= memo_.size() || !memo_[index])
      return broken("recalls the value number {}, which was never remembered", index);
    stack_.push_back(*memo_[index]);
    return ok();
  }

  template <class Number>
  Status with_index(Status (Machine::*action)(uint64_t)) {
    RAT_ASSIGN(const Number index, number<Number>());
    return (this->*action)(index);
  }

  Result<bool> memory(uint8_t op) {
    switch (op) {
      case op_put1:
        return done(with_index<uint8_t>(&Machine::remember));
      case op_put4:
        return done(with_index<uint32_t>(&Machine::remember));
      case op_memoize:
        return done(remember(remembered_));
      case op_get1:
        return done(with_index<uint8_t>(&Machine::recall));
      case op_get4:
        return done(with_index<uint32_t>(&Machine::recall));
      case op_pop: {
        RAT_TRY(pop());
        return true;
      }
      case op_pop_mark: {
        RAT_TRY(pop_to_mark());
        return true;
      }
      default:
        return false;
    }
  }

  // `name` as "module name" must be on the allow-list.
  Status push_symbol(std::string_view module, std::string_view name) {
    const std::optional<std::string_view> known = find_global(module, name);
    if (!known)
      return broken(
          "names the Python object '{}.{}', which is not on the list of harmless ones and is never called; "
          "save only the tensors: torch.save(model.state_dict(), FILE)",
          printable(module), printable(name));
    Node node{.kind = Kind::symbol};
    node.text = *known;
    return push(std::move(node));
  }
  Status global() {
    RAT_ASSIGN(const std::string_view module, line());
    RAT_ASSIGN(const std::string_view name, line());
    return push_symbol(module, name);
  }
  Status stack_global() {
    RAT_ASSIGN(const uint32_t name, pop());
    RAT_ASSIGN(const uint32_t module, pop());
    const Node &name_node = tree_.nodes[name], &module_node = tree_.nodes[module];
    if (name_node.kind != Kind::text || module_node.kind != Kind::text)
      return broken("names a Python object by something that is not text");
    return push_symbol(module_node.text, name_node.text);
  }

  // Called with arguments: only the constructors that have a stand-in.
  Status reduce() {
    RAT_ASSIGN(const uint32_t arguments, pop());
    RAT_ASSIGN(const uint32_t callee, pop());
    if (tree_.nodes[callee].kind != Kind::symbol || tree_.nodes[arguments].kind != Kind::tuple)
      return broken("calls something that is not a name");
    auto made = construct(tree_, tree_.nodes[callee].text, tree_.nodes[arguments].items);
    if (!made) return broken("{}", made.error().message);
    if (const auto* existing = std::get_if<uint32_t>(&*made)) {
      stack_.push_back(*existing);
      return ok();
    }
    return push(std::get<Node>(std::move(*made)));
  }
  // State of an object: an OrderedDict's attributes (a module's version numbers), an EasyDict's. Dropped.
  Status build() {
    RAT_TRY(pop());
    RAT_ASSIGN(const uint32_t target, top());
    if (tree_.nodes[target].kind != Kind::mapping) return broken("gives attributes to something that is not a dict");
    return ok();
  }
  Status persistent_id() {
    RAT_ASSIGN(const uint32_t id, pop());
    auto storage = storage_of(tree_, id);
    if (!storage) return broken("{}", storage.error().message);
    return push(*std::move(storage));
  }

  Result<bool> object(uint8_t op) {
    switch (op) {
      case op_global:
        return done(global());
      case op_stack_global:
        return done(stack_global());
      case op_reduce:
      case op_new_object:
        return done(reduce());
      case op_build:
        return done(build());
      case op_persistent_id:
        return done(persistent_id());
      default:
        return false;
    }
  }

  Tree tree_;
  std::size_t at_ = 0, start_ = 0;  // next byte; first byte of the current instruction
  std::size_t items_ = 0;
  std::vector<uint32_t> stack_;
  std::vector<std::size_t> marks_;  // heights of the stack
  std::vector<std::optional<uint32_t>> memo_;
  uint64_t remembered_ = 0;  // MEMOIZE counts on from here
};

}  // namespace

Result<Tree> read(std::vector<char> bytes) {
  if (bytes.size() > max_bytes)
    return fail(ErrorCode::corrupt_data, "has a pickle of {} bytes; at most {} are read", bytes.size(), max_bytes);
  return Machine(std::move(bytes)).run();
}

}  // namespace rat::pickle
