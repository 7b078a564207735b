#!/bin/sh
# Runs a compiler; fails where ptxas says that wgmma products wait for each other (C7520: a branch around them; C7514: a use
# of sums that it cannot tell from those under way; C7512: too few registers). These are notes, which no flag turns into
# errors; the first was measured to cost 40 % of a kernel: docs/benchmarks/h200.md.
output=$("$@" 2>&1)
status=$?
[ -z "$output" ] || printf '%s\n' "$output"
case $output in
  *"wgmma.mma_async instructions are serialized"* | *C7520*)
    echo "error: wgmma products are serialized; see the note of ptxas above"
    exit 1
    ;;
esac
exit $status
