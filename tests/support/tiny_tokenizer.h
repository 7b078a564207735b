// A SentencePiece model trained in a moment, built like Llama-2's: BPE, bytes as fallback, spaces and line breaks kept.
#pragma once

#include <gtest/gtest.h>
#include <sentencepiece_trainer.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace rat::test {

// Writes `model` (a path ending in .model) with exactly `pieces` pieces; at least about 300.
inline void train_tiny_tokenizer(const std::filesystem::path& model, int pieces) {
  std::filesystem::path text = model, prefix = model;
  text.replace_extension(".txt"), prefix.replace_extension();
  {
    std::ofstream out(text);
    for (int i = 0; i < 200; ++i)
      out << "line " << i << ": the quick brown fox " << i * 7 % 13
          << " jumps over the lazy dog and the rat reads on\n";
  }
  const auto trained = sentencepiece::SentencePieceTrainer::Train(
      "--input=" + text.string() + " --model_prefix=" + prefix.string() + " --vocab_size=" + std::to_string(pieces) +
      " --model_type=bpe --byte_fallback=true --normalization_rule_name=identity --remove_extra_whitespaces=false "
      "--allow_whitespace_only_pieces=true --split_digits=true --num_threads=1 --minloglevel=2");
  ASSERT_TRUE(trained.ok()) << trained.ToString();
  ASSERT_TRUE(std::filesystem::exists(model));
}

}  // namespace rat::test
