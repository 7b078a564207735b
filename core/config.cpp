#include "core/config.h"

#include "core/mixer_list.h"

namespace rat {
namespace {

constexpr int64_t max_size = int64_t{1} << 24;  // keeps every product of two sizes far inside int64
constexpr int64_t max_layers = 512;

Status positive(const char* name, int64_t value, int64_t minimum) {
  if (value < minimum)
    return fail(ErrorCode::invalid_argument, "model.{} is {}; it must be at least {}", name, value, minimum);
  if (value > max_size)
    return fail(ErrorCode::invalid_argument, "model.{} is {}; the largest supported value is {}", name, value,
                max_size);
  return ok();
}

Status validate_layer(const ModelConfig& config, const LayerConfig& layer, std::size_t index) {
  const auto type = find_mixer_type(layer.kind);
  if (!type) return fail(ErrorCode::invalid_argument, "layer {}: {}", index, type.error().message);
  if ((*type)->uses_chunk && (layer.chunk < 1 || layer.chunk > max_size))
    return fail(ErrorCode::invalid_argument, "layer {}: {} chunk length is {} tokens; it must be 1 to {}", index,
                layer.kind, layer.chunk, max_size);
  if ((*type)->uses_dilation && (layer.dilation < 1 || layer.dilation > max_size))
    return fail(ErrorCode::invalid_argument, "layer {}: {} dilation is {}; it must be 1 (dense) to {}", index,
                layer.kind, layer.dilation, max_size);
  if ((*type)->uses_window && (layer.window < 0 || layer.window > max_size))
    return fail(ErrorCode::invalid_argument, "layer {}: {} window is {} tokens; it must be 0 (own token only) to {}",
                index, layer.kind, layer.window, max_size);
  if ((*type)->uses_initial && (layer.initial < 0 || layer.initial > max_size))
    return fail(ErrorCode::invalid_argument, "layer {}: {} always sees the first {} tokens; it must be 0 to {}", index,
                layer.kind, layer.initial, max_size);
  if (layer.pos && !(*type)->uses_positions)
    return fail(ErrorCode::invalid_argument, "layer {}: {} has no positions to set", index, layer.kind);
  if ((*type)->uses_groups && (config.groups > config.heads || config.heads % config.groups != 0))
    return fail(
        ErrorCode::invalid_argument,
        "model.heads is {} and model.groups is {}; {} shares queries and keys evenly, so groups must divide heads",
        config.heads, config.groups, layer.kind);
  const bool rope = (*type)->uses_positions && config.positions_of(layer) == Positions::rope;
  if ((*type)->uses_kv_heads && config.kv_heads > 0 && config.heads % config.kv_heads != 0)
    return fail(ErrorCode::invalid_argument,
                "model.heads is {} and model.kv_heads is {}; {} shares keys and values evenly, so kv_heads must divide "
                "heads",
                config.heads, config.kv_heads, layer.kind);
  if (rope && config.head_size() % 2 != 0)
    return fail(
        ErrorCode::invalid_argument,
        "the head size is {} (model.d_model {} / model.heads {}); RoPE rotates pairs, so it must be even, or set "
        "positions to none",
        config.head_size(), config.d_model, config.heads);
  return ok();
}

}  // namespace

Status validate(const ModelConfig& config) {
  RAT_TRY(positive("vocab", config.vocab, 2));
  RAT_TRY(positive("d_model", config.d_model, 1));
  RAT_TRY(positive("heads", config.heads, 1));
  RAT_TRY(positive("groups", config.groups, 1));
  RAT_TRY(positive("kv_heads", config.kv_heads, 0));
  RAT_TRY(positive("ffn_mult", config.ffn_mult, 1));
  if (config.d_model % config.heads != 0)
    return fail(ErrorCode::invalid_argument, "model.d_model is {} and model.heads is {}; heads must divide d_model",
                config.d_model, config.heads);
  if (!(config.rope_base > 1.0 && config.rope_base <= 1e12))
    return fail(ErrorCode::invalid_argument, "model.rope_base is {}; it must be above 1 and at most 1e12",
                config.rope_base);
  if (config.layers.empty())
    return fail(ErrorCode::invalid_argument, "model.layers is empty; name at least one layer, for example rat:16*4");
  if (config.layers.size() > static_cast<std::size_t>(max_layers))
    return fail(ErrorCode::invalid_argument, "model.layers has {} layers; the largest supported number is {}",
                config.layers.size(), max_layers);
  for (std::size_t i = 0; i < config.layers.size(); ++i) RAT_TRY(validate_layer(config, config.layers[i], i));
  return ok();
}

}  // namespace rat
