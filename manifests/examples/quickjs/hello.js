// A function in JavaScript of WASI 0.3, small because its engine is: QuickJS.

import { getEnvironment } from 'wasi:cli/environment@0.3.0';
import { Fields, Response } from 'wasi:http/types@0.3.0';

export const handler = {
  async handle(request) {
    const path = request.getPathWithQuery() ?? '/';
    // Read here, not at the top level: that ran once, when the component was built.
    const { GREETING = 'Hello', HIVE_FUNCTION = 'hello' } = Object.fromEntries(getEnvironment());
    const text = `${GREETING} from ${HIVE_FUNCTION}: you asked for ${path}\n`;

    const headers = Fields.fromList([['content-type', utf8('text/plain; charset=utf-8')]]);
    const trailers = wit.Future.from({ tag: 'ok', val: null }, wit.Future.RESULT_OPTION_OTHER_ERROR_CODE);
    const [response] = Response.new(headers, [utf8(text)], trailers.readable);
    return response;
  },
};

// The engine has no TextEncoder.
function utf8(text) {
  return Uint8Array.from(unescape(encodeURIComponent(text)), (byte) => byte.charCodeAt(0));
}
