#!/bin/sh
# Runs a compiler; fails where ptxas says that wgmma products wait for each other (C7520). That is a note, which no flag turns
# into an error, and was measured to cost 40 % of a kernel: docs/benchmarks/h200.md.
output=$("$@" 2>&1)
status=$?
[ -z "$output" ] || printf '%s\n' "$output"
case $output in
  *C7520*)
    echo "error: wgmma products are serialized; keep branches away from them (see the note of ptxas above)"
    exit 1
    ;;
esac
exit $status
