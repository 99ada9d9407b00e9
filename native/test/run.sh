#!/usr/bin/env bash
# Builds the native layer without Node under sanitizers, with its two test programs, and runs them.
#   native/test/run.sh address    AddressSanitizer (with leaks) and UndefinedBehaviorSanitizer
#   native/test/run.sh thread     ThreadSanitizer
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
address) sanitizers="address,undefined" ;;
thread) sanitizers="thread" ;;
*)
  echo "usage: native/test/run.sh address|thread" >&2
  exit 2
  ;;
esac

build="build/$1"
mkdir -p "$build/test/transport" "$build/cpu" "$build/transport"
flags=(-std=gnu++17 -O1 -g -fno-omit-frame-pointer -ffp-contract=off -Wall -Wextra -Wno-psabi -pthread
  "-fsanitize=$sanitizers" -fno-sanitize-recover=all)
# everything but the surfaces for Node
shopt -s extglob
layer=(!(*addon).cc cpu/*.cc transport/*.cc)
sources=(test/*.cc test/transport/*.cc "${layer[@]}")

# One job per core; xargs fails when a compilation does.
printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -I{} "${CXX:-g++}" "${flags[@]}" -c {} -o "$build/{}.o"
# link NAME SOURCE...: a program of these and the layer
link() {
  local objects=("${@:2}" "${layer[@]}")
  objects=("${objects[@]/#/$build/}")
  "${CXX:-g++}" "${flags[@]}" -o "$build/$1" "${objects[@]/%/.o}" -ldl
  "$build/$1"
}
link main test/*.cc
link transport-main test/transport/*.cc
