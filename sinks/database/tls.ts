import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import { TidemarkError } from '../../schemas/index.ts';

/** How to reach a database: what `pg` is given. */
export interface Way {
  connectionString: string;
  /** absent: as `pg` does by itself, which is no TLS */
  ssl?: ConnectionOptions | false;
}

const PARAMETERS = ['sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'ssl_min_protocol_version'] as const;

/** Whether a connection stays on this machine. */
function isLocal(url: URL): boolean {
  const host = (url.searchParams.get('host') ?? decodeURIComponent(url.hostname)).replace(/^\[|\]$/g, '');
  return (
    host === '' || host === 'localhost' || host === '::1' || host.startsWith('/') || /^127(\.\d{1,3}){3}$/.test(host)
  );
}

/**
 * TLS for a database URL, from libpq's parameters in it. Elsewhere than on this machine it is TLS 1.3 with a checked
 * certificate unless the URL says otherwise: `sslmode=require` (or `no-verify`) does not check it, `disable` is none.
 */
export function wayTo(databaseUrl: string): Way {
  const url = new URL(databaseUrl);
  const [mode, root, cert, key, least] = PARAMETERS.map((name) => url.searchParams.get(name) ?? undefined);
  for (const name of PARAMETERS) url.searchParams.delete(name);
  const connectionString = url.toString();
  if (mode === 'disable') return { connectionString, ssl: false };
  if (mode === undefined && isLocal(url)) return { connectionString };
  return {
    connectionString,
    ssl: {
      minVersion: least === 'TLSv1.2' ? 'TLSv1.2' : 'TLSv1.3',
      rejectUnauthorized: mode !== 'require' && mode !== 'no-verify',
      // libpq's verify-ca checks who signed it, not the name in it.
      ...(mode === 'verify-ca' ? { checkServerIdentity: () => undefined } : {}),
      ...(root === undefined ? {} : { ca: readFileSync(root, 'utf8') }),
      ...(cert === undefined ? {} : { cert: readFileSync(cert, 'utf8') }),
      ...(key === undefined ? {} : { key: readFileSync(key, 'utf8') }),
    },
  };
}

/**
 * Holds the setting DATABASE_TLS.
 * @returns the URL to use
 * @throws TidemarkError `invalid_setting` where TLS 1.3 is required and the URL turns it off
 */
export function secureUrl(databaseUrl: string, tls: 'required' | 'optional'): string {
  const url = new URL(databaseUrl);
  if (isLocal(url)) return databaseUrl;
  const mode = url.searchParams.get('sslmode');
  if (tls === 'optional') {
    if (mode === null) url.searchParams.set('sslmode', 'disable');
    return url.toString();
  }
  if (mode === 'disable' || mode === 'allow' || mode === 'prefer' || url.searchParams.has('ssl_min_protocol_version'))
    throw new TidemarkError(
      'invalid_setting',
      'DATABASE_URL is not local and turns TLS 1.3 off: remove sslmode and ssl_min_protocol_version from it, or set DATABASE_TLS=optional',
    );
  return databaseUrl;
}
