// A function in JavaScript, written as for a service worker: it answers the event `fetch`.

import { getEnvironment } from 'wasi:cli/environment@0.2.10';

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const { pathname } = new URL(request.url);
  // What is printed appears in `hivectl logs`.
  console.log(`asked for ${pathname}`);

  if (pathname === '/echo') {
    return new Response(request.body, { headers: { 'content-type': 'application/octet-stream' } });
  }
  // Read here, not at the top level: that ran once, when the component was built.
  const { GREETING = 'Hello', HIVE_FUNCTION = 'hello' } = Object.fromEntries(getEnvironment());
  return new Response(`${GREETING} from ${HIVE_FUNCTION}: you asked for ${pathname}\n`, {
    headers: { 'content-type': 'text/plain; charset=utf-8' },
  });
}
