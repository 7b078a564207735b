// Numbers as a reader wants them: three significant digits, SI prefixes, thousands separated, units beside.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace rat::views {

std::string grouped(int64_t value);                        // 12,345
std::string si(double value, std::string_view unit = "");  // "61.3 k tok/s"; "-" when not known (NaN)
std::string bytes_text(double bytes);                      // "0.56 MB", "4.0 kB": powers of 1000, as disks and papers
std::string milliseconds(double ms);                       // "0.83 ms", "2.41 s"
std::string percent(double share);                         // "12.3 %"
std::string number(double value);                          // three significant digits, "1.2e-05" when tiny
std::string fixed(double value, int digits);
std::string half_life_text(double tokens);  // "12.3 tok", "never halves"

}  // namespace rat::views
