#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test, the window's included (under Xvfb). The same command CI runs.
#   ./test.sh                  everything, Release
#   ./test.sh -R gated_scan    arguments go to ctest
#   ./test.sh --sanitize       AddressSanitizer + UBSan, then ThreadSanitizer
source "$(dirname "${BASH_SOURCE[0]}")/.ci/setup.sh"

run_tests() {  # folder [ctest arguments...]
  local folder=$1
  shift
  say "testing in $folder (screenshots: $folder/artifacts)"
  ctest --test-dir "$folder" --output-on-failure --parallel "$(nproc)" --no-tests=error "$@"
}

install_packages build window test
if [ "${1:-}" = --sanitize ]; then
  shift
  export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1}
  export LSAN_OPTIONS=${LSAN_OPTIONS:-suppressions=$PWD/tests/sanitizers/lsan.supp:print_suppressions=0}
  export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
  export TSAN_OPTIONS=${TSAN_OPTIONS:-suppressions=$PWD/tests/sanitizers/tsan.supp:halt_on_error=1}
  for preset in asan tsan; do
    build "$preset"
    run_tests "build-$preset" "$@"
  done
else
  build release
  run_tests build "$@"
fi
