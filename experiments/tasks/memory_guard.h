// How much memory a forward pass needs, before it is tried.
#pragma once

#include <cstdint>

#include "core/config.h"
#include "kernels/base/status.h"

namespace rat {

// Bytes beyond the weights for one forward pass over `batch` sequences of T tokens that returns all logits: one layer's
// activations and scratch, and (B, T, V) logits.
int64_t forward_bytes(const ModelConfig& model, int64_t seq_len, int64_t batch);
int64_t available_memory_bytes();  // what the kernel says can be used without swapping
// One sentence when a single sequence of T tokens does not fit into `limit` bytes.
Status check_memory(const ModelConfig& model, int64_t seq_len, int64_t limit);
// Sequences per forward pass: as many as keep it small, at least one.
int64_t score_batch(const ModelConfig& model, int64_t seq_len, int64_t limit);
// Sequences that are decoded in lockstep: the more the faster, while their caches and logits stay small.
int64_t decode_batch(const ModelConfig& model, int64_t seq_len, int64_t limit);

}  // namespace rat
