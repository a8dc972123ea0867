#!/bin/sh
# Builds hello-javascript.wasm beside this script. README.md says what must be installed.
set -eu
cd "$(dirname "$0")"
npm ci --no-audit --no-fund
npm run --silent build
