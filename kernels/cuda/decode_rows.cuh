// Which rows of its cache a decoding step reads and writes: rat_decode.cu, group_decode.cu.
#pragma once

#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda::decoding {

// Which layer a token goes through: RAT, attention over tokens, the same where heads share keys, or RAT+.
enum class Mixer { rat, attention, shared_attention, ratplus };
template <Mixer kMixer>
constexpr bool kAttention = kMixer == Mixer::attention || kMixer == Mixer::shared_attention;

// Which rows of the cache a step reads, and which it may write.
template <Mixer kMixer>
struct Rows {
  int seen, own;            // how many older keys; the row of this token, or of the chunk that it is in
  int before = 0;           // dilated: how many of the older keys are before the window; they come first
  int ring = 0, kept = -1;  // dilated: rows of the ring; the row behind it that this token takes as well, if any

  template <class Args>
  __device__ Rows(const Args& a, int chunk) : seen(chunk), own(chunk) {  // with chunks of 1: the token
    if constexpr (kMixer == Mixer::rat) return;
    const RatShape& s = a.shape;
    own = static_cast<int>(s.cache_row(chunk));
    if (s.window >= 0) seen = static_cast<int>(min(int64_t{chunk}, s.window));
    if constexpr (kMixer == Mixer::ratplus) {
      if (!a.before.dilated()) return;
      ring = static_cast<int>(s.window) + 1;
      before = static_cast<int>(a.before.keys_seen(chunk));
      seen += before;
      const int64_t index = a.before.keys_seen(chunk + s.window);  // of keys before this token
      if (a.before.keys_seen(chunk + ring) > index) kept = static_cast<int>(a.before.cache_row(index));
    }
  }
  // A full ring has older keys on both sides of the row that this token takes.
  __device__ int of(int j) const {
    if constexpr (kMixer == Mixer::rat) return j;
    if (kMixer == Mixer::ratplus && j < before) return ring + j;
    const int row = kMixer == Mixer::ratplus ? j - before : j;
    return row >= own ? row + 1 : row;
  }
  __device__ int last() const { return max(own, max(kept, before > 0 ? ring + before - 1 : 0)); }
};

}  // namespace rat::kernels::cuda::decoding
