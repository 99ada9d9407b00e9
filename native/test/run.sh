#!/usr/bin/env bash
# Builds the native layer without Node under sanitizers, with its test programs, and runs them.
#   native/test/run.sh address    AddressSanitizer (with leaks) and UndefinedBehaviorSanitizer
#   native/test/run.sh thread     ThreadSanitizer
#   native/test/run.sh wire       only what meshes take from peers that do not keep to the protocol, under AddressSanitizer
#   native/test/run.sh graphs     which ops of a lane on the GPU are launched together, and when, and times of ops, under ThreadSanitizer; with
#                                 "schedule" behind it, those of the program on the standard input (test/graphs/schedule.cc)
#   native/test/run.sh tiles      the tiles of grouped products and attention on the GPU, on an emulated block
#   native/test/run.sh cudnn      cuDNN's graphs of attention, on a library that computes them as they are described
#   native/test/run.sh cudnn-gpu  the same on a GPU and the cuDNN that is found, case by case; compiled by nvcc
# TANDEM_FUZZ says how many frames go over the wire at random (2,000), TANDEM_SEED which (1).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

newest=$(find . -name build -prune -o \( -name '*.cc' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' -o -name '*.inc' -o -name run.sh \) -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2-)
# What is newer than every source is kept.
kept() { [ "$1" -nt "$newest" ]; }
# made PROGRAM COMMAND...: there, whole, as the command makes it
made() { kept "$1" || { "${@:2}" -o "$1.new" && mv "$1.new" "$1"; }; }

optimise=(-O1 -g)
case "${1:-}" in
# fibers are beyond sanitizers
tiles)
  mkdir -p build
  made build/tiles "${CXX:-g++}" -std=gnu++17 -O1 -Wall -Wextra -Wno-unknown-pragmas -Wno-clobbered test/tiles/*.cc
  exec build/tiles "${TANDEM_CASES:-24}" "${TANDEM_SEED:-1}"
  ;;
graphs)
  mkdir -p build
  # quicker to build than to make fast
  made build/graphs "${CXX:-g++}" -std=gnu++17 -O0 -g -Wall -Wextra -pthread -fsanitize=thread test/graphs/*.cc
  exec build/graphs "${2:-${TANDEM_SEED:-1}}"
  ;;
cudnn)
  mkdir -p build
  flags=(-std=gnu++17 -O0 -Wall -Wextra -fsanitize=address)
  made build/libcudnn-test.so "${CXX:-g++}" "${flags[@]}" -fPIC -fvisibility=hidden -shared test/cudnn/library.cc
  made build/cudnn "${CXX:-g++}" "${flags[@]}" test/cudnn/main.cc -x c++ cuda/cudnn.cu cuda/cudnn-attention.cu -ldl
  TANDEM_CUDNN="${TANDEM_CUDNN:-$PWD/build/libcudnn-test.so}" exec build/cudnn "${TANDEM_CASES:-30}" "${TANDEM_SEED:-1}"
  ;;
cudnn-gpu)
  mkdir -p build
  "${NVCC:-nvcc}" -std=c++17 -O2 -x cu -o build/cudnn-gpu test/cudnn/main.cc cuda/cudnn.cu cuda/cudnn-attention.cu -ldl
  exec build/cudnn-gpu "${TANDEM_CASES:-20}" "${TANDEM_SEED:-1}"
  ;;
address) sanitizers="address,undefined" ;;
thread) sanitizers="thread" ;;
# quicker to build than to make fast
wire) sanitizers="address" optimise=(-O0) ;;
*)
  echo "usage: native/test/run.sh address|thread|wire|graphs|tiles|cudnn|cudnn-gpu" >&2
  exit 2
  ;;
esac

# UCX's hooks of memory calls take a lock where a thread ends, after ThreadSanitizer has let go of that thread: a crash of its own.
if [ "$1" = thread ]; then export UCX_MEM_EVENTS=n UCX_MEM_MMAP_HOOK_MODE=none; fi

# What UCX has for messages amid which a rank came to rest is never given back (transport/ucx-carrier.cc).
export LSAN_OPTIONS="suppressions=$PWD/test/ucx-left.supp:print_suppressions=0${LSAN_OPTIONS:+:$LSAN_OPTIONS}"

build="build/$1"
mkdir -p "$build"/test/{transport,wire} "$build/cpu" "$build/transport"
# ThreadSanitizer knows no fences; what they order lies in memory of two processes, which it does not see either.
if [ "$1" = thread ]; then optimise+=(-Wno-tsan); fi
flags=(-std=gnu++17 "${optimise[@]}" -fno-omit-frame-pointer -ffp-contract=off -Wall -Wextra -Wno-psabi -pthread
  "-fsanitize=$sanitizers" -fno-sanitize-recover=all)
# everything but the surfaces for Node
shopt -s extglob
layer=(!(*addon).cc cpu/*.cc transport/*.cc)
connections=(transport/{mesh,mesh-io,exchange,connections,lent-memory,tcp-carrier,transport-choice,ucx-api,ucx-carrier,ucx-settings,ucx-way,handshake,sha256}.cc)
sources=(test/*.cc test/transport/*.cc test/wire/*.cc "${layer[@]}")

if [ "$1" = wire ]; then
  # As one file, whose headers are read once: half of the time. One source has a name that another has too.
  apart=transport/ucx-carrier.cc
  kept "$build/wire-main" ||
    for one in test/wire/*.cc "${connections[@]}"; do [ "$one" = "$apart" ] || echo "#include \"../../$one\""; done >"$build/all.cc"
  made "$build/wire-main" "${CXX:-g++}" "${flags[@]}" "$build/all.cc" "$apart" -ldl
  exec "$build/wire-main" "${TANDEM_FUZZ:-2000}" "${TANDEM_SEED:-1}"
fi

# One job per core; xargs fails when a compilation does.
stale() { for one in "${sources[@]}"; do kept "$build/$one.o" || echo "$one"; done; }
stale | xargs -r -P "$(nproc)" -I{} "${CXX:-g++}" "${flags[@]}" -c {} -o "$build/{}.o"
# link NAME SOURCE...: a program of these and the layer
link() {
  local objects=("${@:2}")
  objects=("${objects[@]/#/$build/}")
  "${CXX:-g++}" "${flags[@]}" -o "$build/$1" "${objects[@]/%/.o}" -ldl
}
link wire-main test/wire/*.cc "${connections[@]}"
"$build/wire-main" "${TANDEM_FUZZ:-2000}" "${TANDEM_SEED:-1}"
link main test/*.cc "${layer[@]}"
"$build/main"
link transport-main test/transport/*.cc "${layer[@]}"
"$build/transport-main"
