# Sourced by run.sh and test.sh: installs what is missing, configures and builds. Seconds when nothing changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\033[1m==>\033[0m %s\n' "$*" | { [ -t 1 ] && cat || sed 's/\x1b\[[0-9;]*m//g'; }; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# install_packages build window test: the packages of these parts of .ci/packages.txt that are not installed yet.
install_packages() {
  command -v dpkg-query >/dev/null || { say "not a Debian system: expecting the libraries of .ci/packages.txt to be installed"; return; }
  local missing=() part package
  while read -r part package; do
    [[ " $* " == *" $part "* ]] || continue
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done < <(grep -v '^#' .ci/packages.txt)
  [ ${#missing[@]} -eq 0 ] && return
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "these packages are missing and installing them needs root or sudo: ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing ${#missing[@]} packages: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null \
    || die "apt-get could not install ${missing[*]}; run it by hand to see why"
  reconfigure=true  # what was not found before may be there now
}
reconfigure=false

# build PRESET [target...]: Release with all cores unless the preset says otherwise.
build() {
  local preset=$1
  shift
  local folder=build
  [ "$preset" = release ] || folder=build-$preset
  if [ "$reconfigure" = true ] || [ ! -f "$folder/build.ninja" ]; then
    say "configuring ($preset)"
    mkdir -p "$folder"
    cmake --preset "$preset" >"$folder/configure.log" 2>&1 || {
      cat "$folder/configure.log"
      rm -f "$folder/build.ninja"  # half a configuration must not look like a whole one
      die "cmake could not configure the project"
    }
  fi
  say "building ($preset, $(nproc) cores)"
  if [ $# -gt 0 ]; then cmake --build "$folder" --parallel "$(nproc)" --target "$@"; else cmake --build "$folder" --parallel "$(nproc)"; fi
}
