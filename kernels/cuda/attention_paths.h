// The implementations behind chunk_attention; only chunk_attention.cu calls them, after its checks.
#pragma once

#include "kernels/cuda/chunk_attention.h"
#include "kernels/cuda/device_math.cuh"

namespace rat::kernels::cuda::paths {

template <class T>
Status simple_forward(const ChunkAttentionArgs<T>& args, cudaStream_t stream);
template <class T>
Status simple_backward(const ChunkAttentionBackwardArgs<T>& args, cudaStream_t stream);

Status mma_forward(const ChunkAttentionArgs<bf16>& args, cudaStream_t stream);
Status mma_backward(const ChunkAttentionBackwardArgs<bf16>& args, cudaStream_t stream);

#if defined(RAT_CUDA_HOPPER)
Status wgmma_forward(const ChunkAttentionArgs<bf16>& args, cudaStream_t stream);
Status wgmma_backward(const ChunkAttentionBackwardArgs<bf16>& args, cudaStream_t stream);
#endif

}  // namespace rat::kernels::cuda::paths
