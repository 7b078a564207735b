// A fast checksum of tensor values (XXH3, 64 bits): finds a flipped bit on a disk, proves nothing about who wrote it.
// Names of content (data sets, specs) use SHA-256 instead.
#pragma once

#include <memory>
#include <span>
#include <string>

namespace rat {

class ContentHash {
 public:
  ContentHash();
  ~ContentHash();
  ContentHash(const ContentHash&) = delete;
  ContentHash& operator=(const ContentHash&) = delete;

  void update(std::span<const float> values);
  std::string hex() const;  // 16 digits of what was seen so far

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rat
