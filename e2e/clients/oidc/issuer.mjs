// An OpenID Connect issuer for tests: any name signs in, with any password.
// usage: node issuer.mjs CERTIFICATE KEY SECONDS_THAT_AN_ID_TOKEN_LIVES; prints its URL when it serves.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

// Its URL is all that is printed: the provider's notices would end the process where nobody reads on.
console.info = console.warn = console.error;

const [certificate, key, lifetime] = process.argv.slice(2);
const gone = new Set();
const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) });
server.listen(0, '127.0.0.1', () => {
  const issuer = `https://localhost:${server.address().port}`;
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const provider = new Provider(issuer, {
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'of-the-test', use: 'sig', alg: 'ES256' }] },
    clients: [{
      // A tunnel, at any port.
      client_id: 'photos',
      client_secret: 'of-the-test',
      application_type: 'native',
      token_endpoint_auth_method: 'client_secret_basic',
      id_token_signed_response_alg: 'ES256',
      redirect_uris: ['http://localhost/.hive/callback'],
      response_types: ['code'],
      grant_types: ['authorization_code'],
    }, {
      client_id: 'hive',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      id_token_signed_response_alg: 'ES256',
      redirect_uris: ['http://127.0.0.1/callback'],
      response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
    }],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups'] },
    scopes: ['openid', 'offline_access', 'email', 'groups'],
    conformIdTokenClaims: false,
    cookies: { keys: ['of-the-test'] },
    features: { devInteractions: { enabled: true }, deviceFlow: { enabled: true } },
    ttl: { IdToken: Number(lifetime), RefreshToken: 3600, AccessToken: 3600, Grant: 3600, Session: 3600, Interaction: 600, DeviceCode: 600 },
    rotateRefreshToken: true,
    async findAccount(_, id) {
      if (gone.has(id)) return undefined;
      return {
        accountId: id,
        claims: async () => ({ sub: id, email: id, email_verified: true, groups: ['makers'] }),
      };
    },
  });
  const serve = provider.callback();
  server.on('request', (request, response) => {
    const url = new URL(request.url, issuer);
    // Somebody leaves the house.
    if (url.pathname === '/test/dismiss') {
      gone.add(url.searchParams.get('user'));
      return response.end();
    }
    return serve(request, response);
  });
  console.log(issuer);
});
// It ends with the test that started it.
process.stdin.resume().on('end', () => process.exit());
