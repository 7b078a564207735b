// A model and a text so small that a training step takes about a millisecond.
#pragma once

#include <fmt/format.h>

#include "experiments/run_spec.h"
#include "tests/experiments/store_fixture.h"

namespace rat {

inline void write_tiny_text(const std::filesystem::path& path) {
  std::string text;
  for (int i = 0; i < 400; ++i)
    text += fmt::format("line {}: the quick brown fox {} jumps over {} lazy dogs\n", i, i * 7 % 13, i * i % 29);
  write_bytes(path, text);
}

inline RunSpec tiny_spec(const std::filesystem::path& text, const std::string& layers = "rat:8*2", int64_t steps = 20) {
  RunSpec spec;
  spec.name = layers;
  spec.model.d_model = 16;
  spec.model.heads = 2;
  spec.model.groups = 1;
  spec.model.ffn_mult = 2;
  spec.model.layers = *parse_layers(layers);
  spec.data.path = text.string();
  spec.train.steps = steps;
  spec.train.batch = 4;
  spec.train.seq_len = 24;
  spec.train.warmup = 5;
  spec.train.eval_every = 10;
  spec.train.eval_tokens = 200;
  spec.train.checkpoint_every = 0;
  spec.train.optimizer.lr = 5e-3;
  return spec;
}

}  // namespace rat
