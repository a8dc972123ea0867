// A person with a browser: opens a page, signs in as USER, agrees to everything, and stops where there
// is nothing left to agree to, or, with STOP, where a URL begins so. usage: node browser.mjs URL USER [STOP]
const [start, user, stop] = process.argv.slice(2);
const cookies = new Map();

async function open(url, form) {
  for (let hops = 0; hops < 20; hops += 1) {
    const response = await fetch(url, {
      method: form ? 'POST' : 'GET',
      body: form,
      redirect: 'manual',
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
    });
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      if (value) cookies.set(name, value); else cookies.delete(name);
    }
    const next = response.headers.get('location');
    if (!next) return { url, text: await response.text() };
    url = new URL(next, url).href;
    if (stop && url.startsWith(stop)) return { url, text: url };
    form = undefined;
  }
  throw new Error('redirected in circles');
}

let page = await open(start);
for (let pages = 0; pages < 8; pages += 1) {
  const found = /<form[^>]*>[\s\S]*?<\/form>/.exec(page.text);
  if (!found) break;
  const [html] = found;
  const form = new URLSearchParams();
  for (const [input] of html.matchAll(/<(?:input|button)[^>]*>/g)) {
    const name = /\sname="([^"]*)"/.exec(input)?.[1];
    const value = /\svalue="([^"]*)"/.exec(input)?.[1] ?? '';
    if (name && name !== 'abort') form.set(name, value);
  }
  if (html.includes('name="login"')) { form.set('login', user); form.set('password', 'any'); }
  const action = /\saction="([^"]*)"/.exec(html)?.[1] || page.url;
  page = await open(new URL(action, page.url).href, form);
}
console.log(page.text.replaceAll(/<style[\s\S]*?<\/style>|<[^>]*>/g, ' ').replaceAll(/\s+/g, ' ').trim());
