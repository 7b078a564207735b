// Keys and values of generation, for mixers that attend to tokens: all of them; or those of a window, a ring of W+1 in
// which token t is in slot t % (W+1), and behind it what is kept of the tokens that have left the window. A slot is B
// rows, one for each sequence: slots are appended and replaced whole.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/config.h"
#include "core/mixers/state_rows.h"
#include "kernels/base/dilation.h"

namespace rat {

// Which earlier tokens a query sees: those of the window, and of older ones the first `initial` and every dilation-th.
struct TokenWindow {
  int64_t window = -1;   // W; below 0: everything earlier
  int64_t dilation = 0;  // D; 0: no token before the window
  int64_t initial = 0;   // S

  bool keeps(int64_t t) const { return t < initial || (dilation > 0 && (t + 1) % dilation == 0); }
  // How many of the first n tokens are kept.
  int64_t kept_of(int64_t n) const { return kernels::kept_tokens(n, dilation, initial); }
  // Keys that token t sees, its own included; also the rows of the cache after it.
  int64_t seen_by(int64_t t) const { return window < 0 || t <= window ? t + 1 : window + 1 + kept_of(t - window); }
  // Rows of the cache after T tokens: the last token that left the window went when token T-1 came.
  int64_t cached(int64_t tokens) const { return tokens == 0 ? 0 : seen_by(tokens - 1); }
  // Mean over the first T tokens of the keys that they see.
  double mean_seen(int64_t tokens) const {
    double sum = 0;
    for (int64_t t = 0; t < tokens; ++t) sum += static_cast<double>(seen_by(t));
    return sum / static_cast<double>(std::max<int64_t>(1, tokens));
  }
};

class KeyCache {
 public:
  KeyCache(const kernels::Backend& backend, int64_t batch, int64_t width, const TokenWindow& window)
      : batch_(batch), window_(window), k_(backend, width), v_(backend, width) {}

  // Slot of the token that leaves the window when token t comes; -1: none does.
  int64_t leaving_slot(int64_t t) const { return window_.window < 0 || t <= window_.window ? -1 : slot_of(t); }
  kernels::Output key(int64_t slot) { return k_.range(slot * batch_, batch_); }
  kernels::Output value(int64_t slot) { return v_.range(slot * batch_, batch_); }

  // Token t of every sequence (B, width), after token t-1.
  Status remember(int64_t t, const kernels::Input& key_rows, const kernels::Input& value_rows,
                  const kernels::Exec& exec) {
    const int64_t leaving = leaving_slot(t);
    if (leaving >= 0 && window_.keeps(t - window_.window - 1)) {
      const int64_t last = slots();
      resize(last + 1);
      RAT_TRY(kernels::copy_rows({.x = key(leaving), .y = key(last)}, exec));
      RAT_TRY(kernels::copy_rows({.x = value(leaving), .y = value(last)}, exec));
    }
    if (leaving < 0) resize(t + 1);
    const int64_t slot = leaving < 0 ? t : leaving;
    RAT_TRY(kernels::copy_rows({.x = key_rows, .y = key(slot)}, exec));
    return kernels::copy_rows({.x = value_rows, .y = value(slot)}, exec);
  }
  // What it holds after all tokens of the sequences, of which `keys` and `values` are the rows (B*T, width).
  Status fill(const kernels::Input& keys, const kernels::Input& values, const kernels::Exec& exec) {
    const int64_t tokens = keys.rows / batch_;
    std::vector<int32_t> from;
    for (const int64_t t : tokens_after(tokens))
      for (int64_t b = 0; b < batch_; ++b) from.push_back(static_cast<int32_t>(b * tokens + t));
    resize(static_cast<int64_t>(from.size()) / batch_);
    RAT_TRY(kernels::copy_rows({.x = keys, .y = k_.all(), .rows = from}, exec));
    return kernels::copy_rows({.x = values, .y = v_.all(), .rows = from}, exec);
  }
  // All slots: row slot * B + b is of sequence b.
  kernels::Input keys() { return k_.all(); }
  kernels::Input values() { return v_.all(); }
  int64_t bytes() const { return k_.bytes() + v_.bytes(); }
  void clear() { resize(0); }

  // Of one sequence, for `batch` copies of it.
  Result<KeyCache> repeated(int64_t batch) const {
    RAT_ASSIGN(StateRows k, k_.repeated(1, batch));
    RAT_ASSIGN(StateRows v, v_.repeated(1, batch));
    return KeyCache(batch, window_, std::move(k), std::move(v));
  }

 private:
  KeyCache(int64_t batch, const TokenWindow& window, StateRows&& k, StateRows&& v)
      : batch_(batch), window_(window), k_(std::move(k)), v_(std::move(v)) {}
  int64_t slot_of(int64_t t) const { return t % (window_.window + 1); }
  int64_t slots() const { return k_.rows() / batch_; }
  void resize(int64_t slots) {
    k_.resize(slots * batch_);
    v_.resize(slots * batch_);
  }
  // Which token each slot holds when `count` have come: the newest of each slot of the ring, then those kept of older
  // ones.
  std::vector<int64_t> tokens_after(int64_t count) const {
    std::vector<int64_t> tokens;
    const int64_t ring = window_.window < 0 ? count : std::min(count, window_.window + 1);
    for (int64_t slot = 0; slot < ring; ++slot) tokens.push_back(slot + (count - 1 - slot) / ring * ring);
    for (int64_t t = 0; t < count - ring; ++t)
      if (window_.keeps(t)) tokens.push_back(t);
    return tokens;
  }

  int64_t batch_;
  TokenWindow window_;
  StateRows k_, v_;
};

}  // namespace rat
