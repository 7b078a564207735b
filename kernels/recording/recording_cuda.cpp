// Recordings as CUDA graphs, captured from the thread's stream.
#include "kernels/cuda/device.h"
#include "kernels/cuda_ops.h"

namespace rat::kernels::gpu {

// Other threads go on taking memory meanwhile; this one fails if it does.
Status begin_recording() {
  return checked(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), "beginning to record a CUDA graph");
}

Result<void*> end_recording() {
  cudaGraph_t graph = nullptr;
  RAT_TRY(checked(cudaStreamEndCapture(stream(), &graph), "recording a CUDA graph"));
  cudaGraphExec_t recording = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&recording, graph, 0);
  (void)cudaGraphDestroy(graph);
  RAT_TRY(checked(error, "making a CUDA graph ready"));
  return static_cast<void*>(recording);
}

Status replay(void* recording) {
  return checked(cudaGraphLaunch(static_cast<cudaGraphExec_t>(recording), stream()), "starting a CUDA graph");
}

// One that still runs is freed when it is done.
void forget_recording(void* recording) { (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(recording)); }

}  // namespace rat::kernels::gpu
