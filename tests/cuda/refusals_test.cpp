// What must be refused, with the reason, before anything is launched.
#include "kernels/cuda/chunk_attention.h"
#include "kernels/cuda/chunk_scan.h"
#include "kernels/cuda/dilated_keys.h"
#include "kernels/cuda/few_rows.h"
#include "kernels/cuda/group_decode.h"
#include "kernels/cuda/head_norms.h"
#include "kernels/cuda/linear_decode.h"
#include "kernels/cuda/own_key.h"
#include "kernels/cuda/rat_decode.h"
#include "kernels/cuda/rotate.h"
#include "kernels/cuda/shared_heads.h"
#include "kernels/cuda/token_scan.h"
#include "kernels/cuda/value_scan.h"
#include "tests/cuda/suites.h"

namespace rat::cuda_test {

using namespace kernels::cuda;

void test_refusals(Checks& checks) {
  const RatShape shape{1, 8, 2, 16, 1, 4};
  Device<bf16> proj(shape.rows() * shape.proj_width()), keys(shape.batch * shape.channels() * shape.full_chunks());
  const auto refused = [&](const char* what, const Status& status, const char* part) {
    checks.that(std::string("refused: ") + what, !status.ok() && status.problem().find(part) != std::string::npos);
    checks.that(std::string("no launch: ") + what, cudaGetLastError() == cudaSuccess);
  };
  ChunkScanArgs<bf16> scan;
  scan.shape = shape, scan.proj = proj.get(), scan.proj_stride = shape.proj_width();
  scan.shape.head_size = 48;
  refused("head size 48", chunk_scan<bf16>(scan, nullptr), "head size 48");
  scan.shape.head_size = 16, scan.shape.groups = 3;
  refused("2 heads in 3 groups", chunk_scan<bf16>(scan, nullptr), "do not divide");
  scan.shape.groups = 1, scan.proj_stride = 5;
  refused("a short row stride", chunk_scan<bf16>(scan, nullptr), "row stride 5");
  scan.proj_stride = shape.proj_width() + 1;
  refused("an odd row stride", chunk_scan<bf16>(scan, nullptr), "no multiple of that");
  ChunkScanBackwardArgs<bf16> scan_back;
  scan_back.shape = shape, scan_back.proj_stride = shape.proj_width(), scan_back.grad_proj_stride = shape.proj_width() + 1;
  refused("an odd row stride of gradients", chunk_scan_backward<bf16>(scan_back, nullptr), "no multiple of that");
  ChunkAttentionBackwardArgs<bf16> attention_back;
  attention_back.shape = shape;
  refused("gradients without turns", chunk_attention_backward<bf16>(attention_back, AttentionPath::simple, nullptr), "the turns");
  if (path_problem<bf16>(AttentionPath::wgmma, 128).empty()) {
    attention_back.shape = {1, int64_t{1} << 30, 2, 128, 1, int64_t{1} << 29};
    attention_back.turns = reinterpret_cast<int*>(proj.get()), attention_back.grad_q_rot = reinterpret_cast<float*>(proj.get());
    refused("chunks beyond 32 bits", chunk_attention_backward<bf16>(attention_back, AttentionPath::wgmma, nullptr), "too long");
  }
  TokenScanArgs whole;
  whole.shape = shape, whole.proj_stride = 5 * shape.channels();
  refused("a scan of chunks over tokens", token_scan(whole, nullptr), "whole sequences (offset 1)");
  whole.shape.offset = whole.shape.chunk_len = 1, whole.proj_stride -= 2;
  refused("a short row stride over tokens", token_scan(whole, nullptr), "a row stride of 158");
  whole.proj_stride += 3;
  refused("an odd row stride over tokens", token_scan_backward({whole}, nullptr), "a row stride of 161");
  whole.proj_stride -= 1;
  refused("no gradients' stride", token_scan_backward({whole}, nullptr), "a row stride of 0 for 5 x 32 gradients");
  refused("rows that are no pieces of 8", output_gate({shape, nullptr, nullptr, 3}, nullptr), "multiples of 8");
  refused("norms of heads of 16", head_norms({shape}, nullptr), "heads of 64 and 128");
  refused("own keys of heads of 16", own_key({shape}, nullptr), "heads of 64 and 128");
  refused("a product of 65 rows", few_rows_product<bf16>({.rows = 65, .n = 8, .k = 8}, nullptr), "65 rows");
  refused("gathering keys that are not dilated", gather_dilated_keys({shape}, nullptr), "it takes dilated keys");
  refused("more tokens than there are", widen_first_tokens({1, 8, 9, 16, 16}, nullptr), "9 of 8 tokens");
  RatDecodeArgs<bf16> step;
  step.shape = {1, 1, 2, 64, 2, 1, 1}, step.capacity = 8, step.recurrent = true, step.proj_stride = 5 * 128;
  refused("a recurrent step without states", rat_decode<bf16>(step, nullptr), "is recurrent has states");
  step.recurrent = false, step.kv_heads = 3;
  refused("2 heads that share 3 keys", rat_decode<bf16>(step, nullptr), "with keys of 3");
  refused("a group of 2 heads that share 3 keys", group_decode<bf16>(step, nullptr), "share keys evenly");
  ChunkAttentionArgs<bf16> dilated;
  dilated.shape = before_window({1, 8, 2, 16, 2, 1, 1, 3}, 2, 0), dilated.shape.groups = 1;
  refused("dilated keys of shared heads", chunk_attention<bf16>(dilated, AttentionPath::simple, nullptr), "a key for each head");
  refused("12 channels of an RNN", value_scan({1, 8, 12}, nullptr), "a multiple of 8");
  refused("linear attention of heads of 16", linear_decode({shape, 1}, nullptr), "heads of 64 or 128");
  refused("shared columns that do not divide", repeat_heads({8, 64, 24, 64}, nullptr), "columns that divide");
  refused("rows that are not aligned", sum_heads({8, 64, 32, 64, {proj.get() + 1, proj.get()}, {proj.get(), proj.get()}}, nullptr),
          "multiples of 16 bytes");
  scan.shape.chunk_len = 0;
  refused("chunk length 0", chunk_scan<bf16>(scan, nullptr), "chunk length 0");
  ChunkAttentionArgs<bf16> attention;
  attention.shape = shape;
  refused("mma with head size 16", chunk_attention<bf16>(attention, AttentionPath::mma, nullptr), "64 or 128");
  ChunkAttentionArgs<float> f32;
  f32.shape = {1, 8, 2, 128, 1, 4};
  refused("mma in f32", chunk_attention<float>(f32, AttentionPath::mma, nullptr), "takes bf16");
  attention.shape.head_size = 128;
  attention.keys = {keys.get(), 3, 3, 3};
  refused("unaligned keys", chunk_attention<bf16>(attention, AttentionPath::mma, nullptr), "multiples of 16 bytes");
  ChunkAttentionArgs<bf16> tokens;
  tokens.shape = {1, 8, 2, 128, 2, 1, 1};
  tokens.own_score = reinterpret_cast<const float*>(keys.get());
  refused("own keys over tokens", chunk_attention<bf16>(tokens, AttentionPath::simple, nullptr), "takes no own keys");
  tokens.own_score = nullptr, tokens.shape.chunk_len = 4;
  refused("offset with chunks", chunk_attention<bf16>(tokens, AttentionPath::simple, nullptr), "chunks of 1");
  tokens.shape.chunk_len = 1, tokens.shape.offset = 0;
  refused("neither offset nor own keys", chunk_attention<bf16>(tokens, AttentionPath::simple, nullptr), "needs own keys");
  tokens.shape.window = 3;
  refused("a window without offset", chunk_attention<bf16>(tokens, AttentionPath::simple, nullptr), "window 3");
  RotateArgs turned{proj.get(), 4, 1, 8, 2, 16, nullptr};
  refused("unaligned rows to rotate", rotate(turned, nullptr), "multiples of 16 bytes");
  turned.head_size = 24;
  refused("rotated heads of 24", rotate(turned, nullptr), "heads of a multiple of 16");
  RatDecodeArgs<bf16> decode;
  decode.shape = {1, 1, 2, 24, 1, 4};
  refused("decode of head size 24", rat_decode<bf16>(decode, nullptr), "power of two");
  decode.shape.head_size = 16, decode.splits = 3, decode.capacity = 4;
  refused("splits without workspace", rat_decode<bf16>(decode, nullptr), "splits");
  RatDecodeArgs<bf16, e4m3> quantised;
  quantised.shape = {1, 1, 2, 16, 1, 4}, quantised.capacity = 4;
  quantised.proj = proj.get(), quantised.proj_stride = shape.proj_width();
  refused("e4m3 without scales", rat_decode<bf16, e4m3>(quantised, nullptr), "no scales");
  Device<ushort2> scales(1);
  quantised.scales = scale_pairs(scales.get(), quantised.shape, 4), quantised.shape.head_size = 8;
  refused("e4m3 with heads of 8", rat_decode<bf16, e4m3>(quantised, nullptr), "heads of 8 and their scales");
}

}  // namespace rat::cuda_test
