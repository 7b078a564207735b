#include "experiments/data/tokenized_text.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <system_error>

#include "core/io/atomic_file.h"
#include "core/io/sha256.h"
#include "kernels/base/parallel.h"

namespace rat {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t block_bytes = std::size_t{64} << 10;
constexpr std::size_t window_bytes = std::size_t{4} << 20;  // read at a time; its blocks are encoded in parallel
constexpr int64_t most_pieces = 65536;                      // a token file holds uint16

bool continues_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// Length of the block that begins `text`, which has at least block_bytes bytes or is the end of everything.
std::size_t block_length(std::string_view text) {
  if (text.size() <= block_bytes) return text.size();
  const std::size_t line = text.substr(0, block_bytes).rfind('\n');
  if (line != std::string_view::npos) return line + 1;
  std::size_t end = block_bytes;
  for (int i = 0; i < 3 && continues_character(text[end]); ++i) --end;
  return end;
}

// Encodes `blocks` in parallel; the tokens of all of them in order, as bytes of a token file.
Result<std::vector<char>> encode_blocks(const std::vector<std::string_view>& blocks, const Tokenizer& tokenizer) {
  std::vector<std::optional<Result<std::vector<int32_t>>>> encoded(blocks.size());
  kernels::parallel_for(static_cast<int64_t>(blocks.size()), [&](int64_t i) {
    try {
      encoded[static_cast<std::size_t>(i)] = tokenizer.encode(blocks[static_cast<std::size_t>(i)]);
    } catch (const std::exception& error) {
      encoded[static_cast<std::size_t>(i)] = fail(ErrorCode::invalid_argument, "encoding failed: {}", error.what());
    }
  });
  std::vector<char> bytes;
  for (const auto& one : encoded) {
    if (!*one) return one->error();
    for (const int32_t id : **one) {
      if (id < 0 || id >= tokenizer.vocab())
        return fail(ErrorCode::corrupt_data, "{} made the id {}, which is outside its {} pieces", tokenizer.name(), id,
                    tokenizer.vocab());
      bytes.push_back(static_cast<char>(id & 0xff));
      bytes.push_back(static_cast<char>(id >> 8));
    }
  }
  return bytes;
}

// Hands the tokens of the whole text to `take`, window by window.
Status encode_all(const ByteStream& text, const Tokenizer& tokenizer, const StopFlag* stop,
                  const EncodingProgress& progress, const std::function<Status(const std::vector<char>&)>& take) {
  std::vector<char> window;
  for (uint64_t at = 0; at < text.size();) {
    if (stop && stop->requested()) return fail(ErrorCode::cancelled, "Encoding the text was stopped");
    window.resize(std::min<uint64_t>(window_bytes, text.size() - at));
    RAT_TRY(text.read(at, window));
    const bool last = at + window.size() == text.size();
    std::string_view rest(window.data(), window.size());
    std::vector<std::string_view> blocks;
    while (!rest.empty() && (last || rest.size() > block_bytes)) {
      const std::size_t length = block_length(rest);
      blocks.push_back(rest.substr(0, length));
      rest.remove_prefix(length);
    }
    RAT_ASSIGN(const std::vector<char> tokens, encode_blocks(blocks, tokenizer));
    RAT_TRY(take(tokens));
    at += window.size() - rest.size();
    if (progress) progress(at, text.size());
  }
  return ok();
}

fs::path cache_folder() {
  const char* base = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path root = base && *base ? fs::path(base) : fs::path(home && *home ? home : "/tmp") / ".cache";
  return root / "rat-workbench" / "tokens";
}

}  // namespace

fs::path token_cache_file(const ByteStream& text, const Tokenizer& tokenizer) {
  const std::string key = sha256_hex(fmt::format("tokens 1: {} {}", text.hash(), tokenizer.hash()));
  return cache_folder() / (key.substr(0, 32) + ".u16");
}

Result<ByteStream> tokenize(const ByteStream& text, const Tokenizer& tokenizer, const StopFlag* stop,
                            const EncodingProgress& progress) {
  if (tokenizer.vocab() > most_pieces)
    return fail(ErrorCode::unsupported, "{} has {} pieces; at most {} are supported", tokenizer.name(),
                tokenizer.vocab(), most_pieces);
  if (text.size() <= small_text) {
    std::vector<char> all;
    RAT_TRY(encode_all(text, tokenizer, stop, progress, [&](const std::vector<char>& tokens) {
      all.insert(all.end(), tokens.begin(), tokens.end());
      return ok();
    }));
    return ByteStream::from_memory(std::move(all));
  }
  const fs::path cached = token_cache_file(text, tokenizer);
  std::error_code error;
  if (!fs::exists(cached, error)) {
    fs::create_directories(cached.parent_path(), error);
    if (error)
      return fail(ErrorCode::io_failure,
                  "The folder for encoded text, {}, cannot be made ({}); set XDG_CACHE_HOME to "
                  "a writable folder",
                  cached.parent_path().string(), error.message());
    remove_stale_temporaries(cached.parent_path());
    RAT_ASSIGN(AtomicFile file, AtomicFile::create(cached));
    RAT_TRY(encode_all(text, tokenizer, stop, progress, [&](const std::vector<char>& tokens) {
      return file.write({tokens.data(), tokens.size()});
    }));
    RAT_TRY(file.commit());
  }
  return ByteStream::from_files({cached}, stop);
}

}  // namespace rat
