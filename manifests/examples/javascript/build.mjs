// Makes hello-javascript.wasm of hello.js: evaluates it once in the engine and keeps the engine's memory.

import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { componentize } from '@bytecodealliance/componentize-js';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

const { component } = await componentize({
  sourcePath: here('hello.js'),
  witPath: here('world.wit'),
  worldName: 'hello',
});
await writeFile(here('hello-javascript.wasm'), component);
console.log(`hello-javascript.wasm: ${component.length} bytes`);
