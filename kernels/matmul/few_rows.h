// C = start + A W^T for few rows of A, as in decoding: dot products that stream W once, each row summed as it would be
// alone. CPU only.
#pragma once

#include "kernels/matmul/matmul.h"

namespace rat::kernels::cpu {

void multiply_few_rows(const MatmulArgs& args);
void multiply_few_rows_bf16(const MatmulArgs& args);  // with args.b_bf16

void round_to_bf16(const float* x, int64_t n, uint16_t* out);

}  // namespace rat::kernels::cpu
