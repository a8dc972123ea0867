#!/bin/sh
# Builds hello-python.wasm beside this script. README.md says what must be installed.
set -eu
cd "$(dirname "$0")"
[ -d .venv ] || python3 -m venv .venv
.venv/bin/pip install --quiet --requirement requirements.txt
.venv/bin/componentize-py --wit-path wit --world hello componentize app --output hello-python.wasm
echo "hello-python.wasm: $(wc -c <hello-python.wasm) bytes"
