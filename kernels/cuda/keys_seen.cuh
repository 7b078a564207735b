// Which keys a token sees and which tokens see a key, as the attention kernels ask for it. A template parameter of theirs,
// so that RAT's inner loops pay nothing for windows, nor the others' for own keys and gates.
#pragma once

#include <cfloat>

#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

// RAT (offset 0): the ends of the chunks before the token's own, then an own key, and an output gate.
struct EarlierChunks {
  static constexpr bool own_key = true;
  int tokens, chunk_len;

  __device__ explicit EarlierChunks(const RatShape& s)
      : tokens(static_cast<int>(s.tokens)), chunk_len(static_cast<int>(s.chunk_len)) {}
  // Token t sees keys [begin(t), end(t)).
  __device__ int begin(int) const { return 0; }
  __device__ int end(int t) const { return t / chunk_len; }
  // Whether the token whose keys end at `end` sees `key` (>= 0).
  __device__ bool sees(int end, int key) const { return key < end; }
  // Tokens [first_token(key), end_token(key)) see the key.
  __device__ int first_token(int key) const {
    return static_cast<int>(min(int64_t{tokens}, (int64_t{key} + 1) * chunk_len));
  }
  __device__ int end_token(int) const { return tokens; }
  // first_token, of keys that need not exist: it may lie beyond the tokens.
  __device__ unsigned seen_from(unsigned key) const { return (key + 1) * static_cast<unsigned>(chunk_len); }
  // Where the score of an own key lies.
  __device__ static int64_t own_score(const RatShape& s, int b, int t, int h) { return (b * s.tokens + t) * s.heads + h; }
};

// RAT+ before its window (offset -W): the first tokens, then every dilation-th. What the window gave is the own key.
struct BeforeWindow {
  static constexpr bool own_key = true;
  int tokens, dilation, window, initial, skipped;  // skipped: ends of chunks among the first tokens

  __device__ explicit BeforeWindow(const RatShape& s)
      : tokens(static_cast<int>(s.tokens)),
        dilation(static_cast<int>(s.chunk_len)),
        window(static_cast<int>(-s.offset)),
        initial(static_cast<int>(s.initial)),
        skipped(initial / dilation) {}
  __device__ int begin(int) const { return 0; }
  __device__ int end(int t) const {
    const int earlier = t - window;
    return earlier <= initial ? max(0, earlier) : initial + earlier / dilation - skipped;
  }
  __device__ bool sees(int end, int key) const { return key < end; }
  __device__ int first_token(int key) const {
    return static_cast<int>(min(static_cast<unsigned>(tokens), seen_from(static_cast<unsigned>(key))));
  }
  __device__ int end_token(int) const { return tokens; }
  __device__ unsigned seen_from(unsigned key) const {
    const auto first = static_cast<unsigned>(initial);
    return static_cast<unsigned>(window) + (key < first ? key + 1 : (key - first + skipped + 1) * dilation);
  }
  __device__ static int64_t own_score(const RatShape& s, int b, int t, int h) { return (b * s.heads + h) * s.tokens + t; }
};

// Attention over tokens (offset 1): the token's own key is one of those that it sees.
struct TokensSoFar {
  static constexpr bool own_key = false;
  int tokens, window;

  __device__ explicit TokensSoFar(const RatShape& s)
      : tokens(static_cast<int>(s.tokens)),
        window(static_cast<int>(s.window < 0 ? s.tokens : min(s.window, s.tokens))) {}
  __device__ int begin(int t) const { return max(0, t - window); }
  __device__ int end(int t) const { return t + 1; }
  __device__ bool sees(int end, int key) const {
    return static_cast<unsigned>(end - 1 - key) <= static_cast<unsigned>(window);
  }
  __device__ int first_token(int key) const { return key; }
  __device__ int end_token(int key) const { return tokens - key - 1 > window ? key + 1 + window : tokens; }
  __device__ unsigned seen_from(unsigned key) const { return key; }
};

// run(KeysSeen<...>()) with what a shape's tokens see.
template <class S>
struct KeysSeen {
  using Type = S;
};
template <class Run>
Status with_keys_seen(const RatShape& s, const Run& run) {
  if (s.over_tokens()) return run(KeysSeen<TokensSoFar>());
  if (s.dilated()) return run(KeysSeen<BeforeWindow>());
  return run(KeysSeen<EarlierChunks>());
}

// Of the tokens [first, last] and `count` keys from `key`: every token sees every key.
template <class Seen>
__device__ __forceinline__ bool sees_all(const Seen& seen, int first, int last, int key, int count) {
  return key + count <= seen.end(first) && key >= seen.begin(last);
}
// No token sees any of them.
template <class Seen>
__device__ __forceinline__ bool sees_none(const Seen& seen, int first, int last, int key, int count) {
  return key >= seen.end(last) || key + count <= seen.begin(first);
}

// Where a running maximum starts that no own key gives: below every score, but finite, so that for a row which sees
// nothing of a tile the next maximum minus this one is 0 rather than NaN.
constexpr float kLowest = -FLT_MAX;

}  // namespace rat::kernels::cuda
