// The sizes of one RAT layer call and where its parts lie in the projected tensor.
//
// proj (N, W), N = B*T, W = 3D + 2GP, columns z | v | g | q | k: output gate, value, forget gate (D each), query and key
// (G*P each, head h reads group h % G). Row b*T + t is token t of sequence b, chunk c = t / L; the last chunk may be
// short. Token t sees the end states of chunks 0 .. t/L - 1 and its own running state.
//
// The attention kernels also take plain attention over tokens, which is L = 1, G = H and `offset` 1: the keys of token t
// are those of the tokens up to itself, or of its window. The columns below are those of RAT.
//
// And they take what dilated attention (RAT+) sees before a window of W: G = H, `offset` -W, `initial` S, L the dilation.
// The keys are the first S tokens and then every L-th one from there on (kernels/cuda/dilated_keys.h): a token sees the first
// few of them, as it does of RAT's.
#pragma once

#include <cstdint>

#include "kernels/cuda/status.h"

#if defined(__CUDACC__)
#define RAT_HD __host__ __device__
#else
#define RAT_HD
#endif

namespace rat::kernels::cuda {

struct RatShape {
  int64_t batch = 0;      // B
  int64_t tokens = 0;     // T
  int64_t heads = 0;      // H
  int64_t head_size = 0;  // P
  int64_t groups = 0;     // G
  int64_t chunk_len = 0;  // L
  int64_t offset = 0;     // token t sees keys j < (t + offset) / L
  int64_t window = -1;    // with offset 1: of these only j >= t - window; below 0: all
  int64_t initial = -1;   // at least 0: dilated

  RAT_HD int64_t rows() const { return batch * tokens; }
  RAT_HD int64_t channels() const { return heads * head_size; }        // D
  RAT_HD int64_t group_width() const { return groups * head_size; }  // G*P
  RAT_HD int64_t chunks() const { return (tokens + chunk_len - 1) / chunk_len; }
  RAT_HD int64_t keys() const { return keys_seen(tokens - 1); }  // that some token of the call sees
  // How many keys token t sees: those from the first one on, where there is no window.
  RAT_HD int64_t keys_seen(int64_t t) const {
    const int64_t earlier = t + offset;
    if (!dilated()) return earlier / chunk_len;
    if (earlier <= initial) return earlier < 0 ? 0 : earlier;
    return initial + earlier / chunk_len - initial / chunk_len;
  }
  // The last token of key j, whose state it is, and the first token that sees it.
  RAT_HD int64_t key_token(int64_t j) const {
    if (!dilated()) return (j + 1) * chunk_len - 1;
    return j < initial ? j : (j - initial + initial / chunk_len + 1) * chunk_len - 1;
  }
  RAT_HD int64_t seen_from(int64_t j) const { return key_token(j) + 1 - offset; }
  RAT_HD int64_t full_chunks() const { return tokens / chunk_len; }    // chunk ends that exist
  RAT_HD int64_t proj_width() const { return 3 * channels() + 2 * group_width(); }
  RAT_HD int64_t value_column() const { return channels(); }
  RAT_HD int64_t gate_column() const { return 2 * channels(); }
  RAT_HD int64_t query_column() const { return 3 * channels(); }
  RAT_HD int64_t key_column() const { return 3 * channels() + group_width(); }
  RAT_HD bool over_tokens() const { return offset == 1; }
  RAT_HD bool dilated() const { return initial >= 0; }
  // Where the decode cache keeps chunk end, or token, j: a window's tokens in a ring, dilated keys behind that.
  RAT_HD int64_t cache_row(int64_t j) const {
    if (dilated()) return 1 - offset + j;
    return window < 0 ? j : j % (window + 1);
  }
};

// The same with other heads: of keys and values that heads share.
inline RatShape of_heads(RatShape shape, int64_t heads) {
  shape.heads = shape.groups = heads;
  return shape;
}

// Head sizes that the scan and the simple attention take: even up to 32, 64, 128 or 256.
inline bool head_size_supported(int64_t p) {
  return (p >= 2 && p <= 32 && p % 2 == 0) || p == 64 || p == 128 || p == 256;
}

inline Status check_shape(const char* op, const RatShape& s) {
  if (s.batch < 1 || s.tokens < 1 || s.heads < 1 || s.groups < 1 || s.chunk_len < 1)
    return refuse("%s: batch %lld, tokens %lld, heads %lld, groups %lld and chunk length %lld must all be at least 1", op,
                  static_cast<long long>(s.batch), static_cast<long long>(s.tokens), static_cast<long long>(s.heads),
                  static_cast<long long>(s.groups), static_cast<long long>(s.chunk_len));
  if (s.heads % s.groups != 0)
    return refuse("%s: %lld heads do not divide into %lld query/key groups", op, static_cast<long long>(s.heads),
                  static_cast<long long>(s.groups));
  if (!head_size_supported(s.head_size))
    return refuse("%s: head size %lld is not supported on the GPU; use an even size up to 32, or 64, 128, 256", op,
                  static_cast<long long>(s.head_size));
  if (s.rows() > (int64_t{1} << 31) - 1 || s.heads > 65535 || s.batch > 65535)
    return refuse("%s: %lld tokens of %lld heads are more than one launch takes; use a smaller batch", op,
                  static_cast<long long>(s.rows()), static_cast<long long>(s.heads));
  return {};
}

// Chunk-end keys or values: row j of head h of sequence b starts at data + b*sequence + h*head + j*row.
template <class T>
struct KeyRows {
  T* data = nullptr;
  int64_t sequence = 0, head = 0, row = 0;  // strides in elements

  RAT_HD T* at(int64_t b, int64_t h, int64_t j) const { return data + b * sequence + h * head + j * row; }
};

template <class T>
KeyRows<const T> read_only(const KeyRows<T>& rows) {
  return {rows.data, rows.sequence, rows.head, rows.row};
}

// (B, H, capacity, P), the layout of the decode cache: the keys of one head are contiguous.
template <class T>
KeyRows<T> head_major(T* data, const RatShape& shape, int64_t capacity) {
  return {data, shape.heads * capacity * shape.head_size, capacity * shape.head_size, shape.head_size};
}

}  // namespace rat::kernels::cuda
