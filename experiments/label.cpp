#include "experiments/label.h"

#include <algorithm>

namespace rat {

Status check_label(const std::string& what, const std::string& text) {
  constexpr int64_t longest = 200;
  const int64_t characters = std::ranges::count_if(text, [](unsigned char c) { return (c & 0xC0) != 0x80; });
  if (std::ranges::any_of(text, is_control))
    return fail(ErrorCode::invalid_argument, "{} has a line break, a tab or another control character; leave it out.",
                what);
  if (characters > longest)
    return fail(ErrorCode::invalid_argument, "{} has {} characters; {} is the most.", what, characters, longest);
  return ok();
}

}  // namespace rat
