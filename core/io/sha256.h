// SHA-256 (FIPS 180-4), streaming. Names content: data sets, specs, checkpoints. `sha256sum` prints the same digits.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace rat {

class Sha256 {
 public:
  void update(std::string_view bytes);
  std::string hex();  // finishes; the object must not be used afterwards

 private:
  void compress(const unsigned char* block);

  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> buffer_{};
  uint64_t length_ = 0;  // bytes so far
};

std::string sha256_hex(std::string_view bytes);

}  // namespace rat
