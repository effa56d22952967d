import { hash, randomBytes, timingSafeEqual } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type pg from 'pg';
import { type KeyStore, type Principal, SCOPES, type Scope } from '../../schemas/index.ts';
import { TENANT_COLUMNS, type TenantRow, toTenant } from './tenant-directory.ts';

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const KEY = /^(tm_(?:live|test)_([0-9A-Za-z]{12})_[0-9A-Za-z]{32})([0-9A-Za-z]{6})$/;
/** A revoked key works for so long at most. */
const FRESH_MS = 10_000;
/** While the database is away, what was good stays good for so long. */
const STALE_MS = 10 * 60_000;
const MOST = 10_000;

const FIND = `
  SELECT k.id AS key_id, k.scopes, k.secret_sha256, k.tenant_id, ${TENANT_COLUMNS.split(', ')
    .map((column) => `t.${column}`)
    .join(', ')}
  FROM api_keys AS k LEFT JOIN tenants AS t ON t.id = k.tenant_id
  WHERE k.id = $1 AND (k.revoked_at IS NULL OR k.revoked_at > now()) AND t.status IS DISTINCT FROM 'deleted'`;

interface KeyRow extends TenantRow {
  key_id: string;
  scopes: string[];
  secret_sha256: Buffer;
  tenant_id: string | null;
}

/** A new key: `secret` is the whole key and is shown once; the database keeps `sha256`. */
export interface NewKey {
  id: string;
  secret: string;
  sha256: Buffer;
}

/** Makes a key `tm_<live|test>_<id>_<secret><crc>`; the check digits tell a mistyped key without asking the database. */
export function generateKey(mode: 'live' | 'test' = 'live'): NewKey {
  const id = randomText(12);
  const body = `tm_${mode}_${id}_${randomText(32)}`;
  const secret = body + checkDigits(body);
  return { id, secret, sha256: sha256(secret) };
}

/**
 * API keys of the database, and the one from the settings.
 * @param adminKey platform key with all scopes
 */
export function openKeyStore(
  pool: pg.Pool,
  { adminKey, now = Date.now }: { adminKey: string; now?: () => number },
): KeyStore {
  const admin = sha256(adminKey);
  const adminPrincipal: Principal = { keyId: 'admin', tenant: null, scopes: new Set(SCOPES) };
  const cache = new Map<string, { principal: Principal | undefined; at: number }>();

  const load = async (digest: Buffer, id: string): Promise<Principal | undefined> => {
    const { rows } = await pool.query<KeyRow>({ name: 'key_by_id', text: FIND, values: [id] });
    const row = rows[0];
    if (row === undefined || !timingSafeEqual(row.secret_sha256, digest)) return undefined;
    const scopes = new Set<Scope>(SCOPES.filter((scope) => row.scopes.includes(scope)));
    return { keyId: row.key_id, tenant: row.tenant_id === null ? null : toTenant(row), scopes };
  };

  return {
    forget: () => cache.clear(),
    authenticate: async (bearer) => {
      const digest = sha256(bearer);
      if (timingSafeEqual(digest, admin)) return adminPrincipal;
      const [, body, id, check] = KEY.exec(bearer) ?? [];
      if (body === undefined || id === undefined || check !== checkDigits(body)) return undefined;
      const name = digest.toString('base64');
      const cached = cache.get(name);
      if (cached !== undefined && now() - cached.at < FRESH_MS) return cached.principal;
      try {
        const principal = await load(digest, id);
        if (cache.size > MOST) cache.clear();
        cache.set(name, { principal, at: now() });
        return principal;
      } catch (error) {
        if (cached !== undefined && now() - cached.at < STALE_MS) return cached.principal;
        throw error;
      }
    },
  };
}

const sha256 = (text: string): Buffer => hash('sha256', text, 'buffer');

/** Uniform: bytes beyond the largest multiple of 62 are drawn again. */
function randomText(length: number): string {
  let out = '';
  while (out.length < length)
    for (const byte of randomBytes(length)) if (byte < 248 && out.length < length) out += ALPHABET[byte % 62];
  return out;
}

/** CRC-32 in base 62, six digits. */
function checkDigits(body: string): string {
  let rest = crc32(body);
  let out = '';
  for (let i = 0; i < 6; i++) {
    out = ALPHABET[rest % 62] + out;
    rest = Math.floor(rest / 62);
  }
  return out;
}
