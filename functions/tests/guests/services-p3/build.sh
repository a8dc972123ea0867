#!/bin/sh
# Builds services_p3.wasm beside this script. README.md says what must be installed.
set -eu
cd "$(dirname "$0")"
name=services_p3
target=wasm32-wasip2
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}"
# Panics name their source: not where it lay on the machine that built it.
remap="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src/=
 --remap-path-prefix=/usr/lib/rustlib/src/rust/=/rustc/"

if [ -d "$(rustc --print target-libdir --target $target)" ]; then
    RUSTFLAGS=$(echo $remap) cargo build --locked --release --target $target
elif [ -x /usr/bin/cargo ] && [ -d /usr/lib/rustlib/src/rust/library ] && [ -x /usr/bin/wasm-ld ]; then
    # Without a standard library for the target: Debian's compiler builds one from its sources.
    # It brings no wasm-component-ld; rustup's toolchain does, or `cargo install --locked wasm-component-ld`.
    linker=$(command -v wasm-component-ld) ||
        linker=$(rustc --print target-libdir)/../bin/wasm-component-ld
    if [ ! -x "$linker" ]; then
        echo "No wasm-component-ld. Install it with: cargo install --locked wasm-component-ld" >&2
        exit 1
    fi
    CARGO_TARGET_WASM32_WASIP2_LINKER=$linker \
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
    RUSTFLAGS="-Clink-self-contained=no -L/usr/lib/wasm32-wasi -Clink-arg=--wasm-ld-path=/usr/bin/wasm-ld $(echo $remap)" \
        /usr/bin/cargo build --locked --release --target $target -Zbuild-std=std,panic_abort
else
    echo "No $target standard library. Install it with: rustup target add $target" >&2
    echo "or with Debian's packages as README.md says." >&2
    exit 1
fi

cp "$CARGO_TARGET_DIR/$target/release/$name.wasm" $name.wasm
echo "$name.wasm: $(wc -c <$name.wasm) bytes"
