// Where an axis carries numbers.
#pragma once

#include <cstdint>
#include <vector>

namespace rat::views {

// Multiples of 1, 2 or 5 times a power of ten inside [low, high], at most `most` of them.
std::vector<double> linear_ticks(double low, double high, int most);
// Multiples of a power of two (token and chunk indices) inside [low, high], at most `most`.
std::vector<int64_t> power_of_two_ticks(double low, double high, int most);
// Powers of ten, with 2 and 5 between them when there is room; low > 0.
std::vector<double> log_ticks(double low, double high, int most);

}  // namespace rat::views
