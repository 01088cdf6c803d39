#!/usr/bin/env bash
# The shipped program: built to count, put to work (train.py), and built again by what was counted.
# It ends up as pgo/jailgate in cargo's target directory. RUSTFLAGS are taken along.
set -euo pipefail
cd "$(dirname "$0")/../.."
# Absolute: cargo compiles dependencies, and the training runs the program, in other directories.
dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")/pgo
host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$profdata" ] || rustup component add llvm-tools

build() { # FLAGS DIRECTORY; naming the target keeps the flags away from build scripts
    RUSTFLAGS="${RUSTFLAGS:-} $1" cargo build --locked --release --bin jailgate --target "$host" --target-dir "$2"
}

mkdir -p "$dir"
rm -rf "$dir/counts"
build "-C profile-generate=$dir/counts" "$dir/generate"
python3 contrib/pgo/train.py "$dir/generate/$host/release/jailgate"
"$profdata" merge -o "$dir/jailgate.profdata" "$dir/counts"
build "-C profile-use=$dir/jailgate.profdata" "$dir/use"
cp "$dir/use/$host/release/jailgate" "$dir/jailgate"
echo "built $dir/jailgate"
