#!/bin/sh
# Builds hello-quickjs.wasm beside this script. README.md says what must be installed.
set -eu
cd "$(dirname "$0")"
# No lock file: package.json names the one version, which names its binaries by theirs, and npm
# refuses a lock file made where a registry lacks the binary of some other platform.
npm install --no-package-lock --no-audit --no-fund
node_modules/.bin/componentize-qjs --wit wit --world hello --js hello.js --output hello-quickjs.wasm
