// Device tests of kernels/cuda. Usage: cuda_test GOLDEN_FOLDER [--runs N] [--suite NAME] [--verbose]
// Exit code 0: all good; 1: a check failed; 77: no GPU here (CTest reports the test as skipped).
#include "tests/cuda/suites.h"

int main(int argc, char** argv) {
  using namespace rat::cuda_test;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a hanging kernel must not take the lines before it along
  std::string golden, suite;
  int runs = 100;
  Checks checks;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--runs" && i + 1 < argc) runs = std::atoi(argv[++i]);
    else if (argument == "--suite" && i + 1 < argc) suite = argv[++i];
    else if (argument == "--verbose") checks.verbose = true;
    else golden = argument;
  }
  if (golden.empty()) {
    std::fprintf(stderr, "usage: cuda_test GOLDEN_FOLDER [--runs N] [--suite NAME] [--verbose]\n");
    return 2;
  }
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    std::printf("SKIPPED: no CUDA device here (%s); the GPU kernels were not tested\n",
                error == cudaSuccess ? "none found" : cudaGetErrorString(error));
    return 77;
  }
  cudaDeviceProp device{};
  require(cudaGetDeviceProperties(&device, 0), "device");
  std::printf("device: %s, compute capability %d.%d\n", device.name, device.major, device.minor);
  const auto run = [&](const char* name, const auto& test) {
    if (suite.empty() ? std::string(name) == "sanitize" : suite != name) return;
    const int failed = checks.failed, passed = checks.passed;
    test();
    std::printf("%-12s %4d passed, %d failed\n", name, checks.passed - passed, checks.failed - failed);
    std::fflush(stdout);
  };
  run("sanitize", [&] {
    test_small(checks), test_few_tokens(checks), test_few_quantised_rows(checks), test_few_gelu_products(checks);
    test_few_gate_products(checks), test_few_token_scans(checks), test_few_head_norms(checks), test_few_linear_decodes(checks);
    test_few_attention_layers(checks), test_few_value_scans(checks), test_small_few_rows(checks);
  });
  run("refusals", [&] { test_refusals(checks); });
  run("rows", [&] { test_rows(checks), test_few_rows(checks), test_gelu_products(checks), test_gate_products(checks); });
  run("core", [&] { test_core(checks); });
  run("tokens", [&] { test_tokens(checks), test_token_scan(checks), test_value_scan(checks), test_head_norms(checks), test_attention_layers(checks); });
  run("adversarial", [&] { test_adversarial(checks), test_hostile_tokens(checks), test_hostile_gelu_products(checks); });
  run("decode", [&] { test_decode(checks), test_quantised_cache(checks), test_linear_decode(checks); });
  run("golden", [&] { test_golden(checks, golden); });
  run("determinism", [&] {
    test_determinism(checks, runs), test_token_determinism(checks, runs), test_gelu_determinism(checks, runs), test_order_of_sums(checks, runs), test_token_scan_determinism(checks, runs), test_value_scan_determinism(checks, runs);
  });
  std::printf("%d passed, %d failed\n", checks.passed, checks.failed);
  return checks.failed == 0 && checks.passed > 0 ? 0 : 1;
}
