// The names a checkpoint may use and the stand-ins they become. Nothing here runs anything.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <variant>

#include "core/io/pickle_reader.h"

namespace rat::pickle {

// "module name" of the allow-list, or nothing.
std::optional<std::string_view> find_global(std::string_view module, std::string_view name);
// What calling the listed name with these arguments stands for: a new node, or one there is already. Errors are half
// sentences.
Result<std::variant<Node, uint32_t>> construct(Tree& tree, std::string_view global,
                                               std::span<const uint32_t> arguments);
// ('storage', torch.<T>Storage, key, location, count)
Result<Node> storage_of(const Tree& tree, uint32_t id);

std::string_view kind_name(Kind kind);
std::string instruction_name(uint8_t op);      // "INST ('i')" or "0xff"
std::string printable(std::string_view text);  // short, without control characters

}  // namespace rat::pickle
