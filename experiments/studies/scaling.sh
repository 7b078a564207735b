#!/bin/sh
# Time and memory of one layer against sequence length T: every mixer, one sequence a batch, D = 256, 4 heads, f32.
# Usage: experiments/studies/scaling.sh OUT_FOLDER [RAT_PROGRAM [T...]]     (default: build/bin/rat, T = 512 to 32768)
# One file a measurement; what is there already is not measured again, so an interrupted study goes on where it was.
# All mixers of one T follow each other, so that a machine that becomes slower meanwhile does not favour one of them.
set -eu
[ $# -ge 1 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
out=$1 rat=${2:-build/bin/rat}
shift; [ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- 512 1024 2048 4096 8192 16384 32768
mkdir -p "$out"
for T in "$@"; do
  line=0  # the order of the files is the order of the lines in the figure
  for layers in rat:16 attention swa:128 rnn ratplus:64/w64 rattention:128 linear; do
    line=$((line + 1))
    file=$out/$line-${layers%%:*}-$T.json
    [ ! -s "$file" ] || continue
    echo "$layers, T = $T" >&2
    "$rat" bench layer --layers "$layers" --seq-len "$T" --batch 1 --d-model 256 --heads 4 --json >"$file.part"
    mv "$file.part" "$file"
  done
done
