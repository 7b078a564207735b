// The suites of the device test program; each adds its checks.
#pragma once

#include "tests/cuda/check.h"

namespace rat::cuda_test {

void test_rows(Checks& checks);                   // RMSNorm, column sums, matmul
void test_core(Checks& checks);                   // scan, attention, output gate, forward and backward, all paths
void test_small(Checks& checks);                  // a few small cases, for compute-sanitizer
void test_adversarial(Checks& checks);            // extreme scores, equal keys, NaN in what must not be read
void test_decode(Checks& checks);                 // token by token against the float64 layer core
// The decode cache in e4m3: rows, decoding, what is not finite; a few small cases.
void test_quantised_cache(Checks& checks);
void test_few_quantised_rows(Checks& checks);
void test_determinism(Checks& checks, int runs);  // bit-equal results
// Attention over tokens, on all paths: masks and windows; extreme scores; small cases; bit-equal results.
void test_tokens(Checks& checks);
void test_hostile_tokens(Checks& checks);
void test_few_tokens(Checks& checks);
void test_token_determinism(Checks& checks, int runs);
// Products with GELU, on both paths: parts of tiles; values that overflow a square; small cases; bit-equal results.
void test_gelu_products(Checks& checks);
void test_hostile_gelu_products(Checks& checks);
void test_few_gelu_products(Checks& checks);
void test_gelu_determinism(Checks& checks, int runs);
void test_order_of_sums(Checks& checks, int runs);
void test_few_rows(Checks& checks);
void test_small_few_rows(Checks& checks);
void test_gate_products(Checks& checks);
void test_few_gate_products(Checks& checks);
void test_attention_layers(Checks& checks);
void test_few_attention_layers(Checks& checks);
void test_head_norms(Checks& checks);
void test_few_head_norms(Checks& checks);
void test_linear_decode(Checks& checks);
void test_few_linear_decodes(Checks& checks);
// The recurrence over whole sequences; small cases; bit-equal results.
void test_token_scan(Checks& checks);
void test_few_token_scans(Checks& checks);
void test_token_scan_determinism(Checks& checks, int runs);
// The recurrence of an RNN: the same.
void test_value_scan(Checks& checks);
void test_few_value_scans(Checks& checks);
void test_value_scan_determinism(Checks& checks, int runs);
void test_refusals(Checks& checks);
void test_golden(Checks& checks, const std::string& folder);  // whole layers against the golden tensors

}  // namespace rat::cuda_test
