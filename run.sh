#!/usr/bin/env bash
# Installs what is missing, builds, and starts the workbench. Without a display: the same demonstration, headless.
#   ./run.sh [DATABASE]     default: $XDG_DATA_HOME/rat-workbench/runs.db
#   ./run.sh --headless     the demonstration in ./demo, also where there is a display
source "$(dirname "${BASH_SOURCE[0]}")/.ci/setup.sh"

headless=false
if [ "${1:-}" = --headless ]; then headless=true; shift; fi

install_packages build window
build release rat rat-workbench

if [ "$headless" = false ] && [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
  say "starting the window"
  exec build/bin/rat-workbench "$@"
fi

[ "$headless" = true ] || say "no display (DISPLAY and WAYLAND_DISPLAY are empty): running the demonstration headless"
demo=${DEMO_DIR:-$PWD/demo}
mkdir -p "$demo"
db=$demo/runs.db
rat=build/bin/rat
say "training rat:16, attention and rnn on this project's own source, one after another (a few minutes; Ctrl+C stops at a checkpoint)"
$rat sweep experiments/studies/first_look.json --db "$db"
runs=$($rat runs list --db "$db" --filter finished --json | grep -oE '"id": ?"[^"]+"' | cut -d'"' -f4 | paste -sd,)
[ -n "$runs" ] || die "no run finished; see the messages above"
$rat figure curves --db "$db" --runs "$runs" --metric val_loss --out "$demo/validation-loss.pdf"
$rat figure tradeoff --db "$db" --runs "$runs" --out "$demo/trade-off.pdf"
say "done. The database is $db; the figures are in $demo:"
ls -1 "$demo"
say "open it later with a display: ./run.sh $db"
