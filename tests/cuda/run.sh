#!/usr/bin/env bash
# Builds, checks and times the device kernels on a machine with an NVIDIA GPU. Usage: tests/cuda/run.sh [OUT_FOLDER [STEP...]]
# Steps: build test sanitize bench peer (default: all). Logs go to OUT_FOLDER (default: build-cuda/logs).
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build-cuda/logs}
shift || true
steps=${*:-build test sanitize bench peer}
mkdir -p "$out"
has() { [[ " $steps " == *" $1 "* ]]; }
failed=0

if has build; then
  cmake -S tests/cuda -B build-cuda -G Ninja -DRAT_CUDA_ARCHITECTURES="${RAT_CUDA_ARCHITECTURES:-90a}" >"$out/configure.log" 2>&1 &&
    ninja -C build-cuda >"$out/build.log" 2>&1 || { tail -n 40 "$out/configure.log" "$out/build.log"; exit 1; }
fi
if has test; then
  build-cuda/bin/cuda_test tests/golden 2>&1 | tee "$out/test.log" | tail -n 60 || failed=1
fi
if has sanitize; then
  for tool in memcheck racecheck; do
    # Small suites: the tools slow kernels down by orders of magnitude.
    compute-sanitizer --tool $tool --error-exitcode 9 build-cuda/bin/cuda_test tests/golden --suite sanitize \
      >"$out/$tool.log" 2>&1 || failed=1
    tail -n 2 "$out/$tool.log"
  done
fi
if has bench; then
  build-cuda/bin/cuda_bench --what ceilings --what train --what prefill --seq-len 4096 --seq-len 131072 \
    --json "$out/bench.json" 2>&1 | tee "$out/bench.log" || failed=1
  for cache in bf16 fp8; do
    build-cuda/bin/cuda_bench --what decode --cache $cache --seq-len 4096 --seq-len 16384 --batch 512 --batch 64 \
      --json "$out/bench.json" 2>&1 | tee -a "$out/bench.log" || failed=1
  done
fi
if has peer; then
  python3 tests/peers/torch_gpu.py --json "$out/peer.json" 2>&1 | tee "$out/peer.log" | tail -n 30 || failed=1
fi
exit $failed
