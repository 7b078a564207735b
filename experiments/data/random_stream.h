// Counter-based random numbers: a stream is named by a few integers, so row r of step s can be drawn without drawing
// what came before it. SplitMix64 (Steele, Lea, Flood 2014); the same bits on every machine.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace rat {

class RandomStream {
 public:
  explicit RandomStream(std::initializer_list<uint64_t> name) {
    for (const uint64_t part : name) state_ = mix(state_ ^ mix(part + golden));
  }

  uint64_t next() { return mix(state_ += golden); }

  // Uniform in [0, bound), bound >= 1; draws again where the last, incomplete run of remainders would bias it.
  uint64_t below(uint64_t bound) {
    const uint64_t incomplete = -bound % bound;  // 2^64 mod bound
    uint64_t value = next();
    while (value < incomplete) value = next();
    return value % bound;
  }

 private:
  static constexpr uint64_t golden = 0x9e3779b97f4a7c15;
  static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  uint64_t state_ = 0;
};

}  // namespace rat
