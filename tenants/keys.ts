import type { Pool } from 'pg';
import type { Scope } from '../schemas/index.ts';
import { generateKey } from '../sinks/index.ts';

/** A key without its secret. */
export interface KeyRecord {
  id: string;
  tenant_id: string | null;
  scopes: Scope[];
  name: string | null;
  created_at: Date;
  revoked_at: Date | null;
}

/** Makes a key; `secret` can't be read again. @param tenantId null: platform-wide */
export async function createKey(
  pool: Pool,
  { tenantId, scopes, name }: { tenantId: string | null; scopes: readonly Scope[]; name: string | null },
): Promise<{ id: string; secret: string }> {
  const { id, secret, sha256 } = generateKey();
  await pool.query('INSERT INTO api_keys (id, tenant_id, scopes, name, secret_sha256) VALUES ($1, $2, $3, $4, $5)', [
    id,
    tenantId,
    scopes,
    name,
    sha256,
  ]);
  return { id, secret };
}

export async function listKeys(pool: Pool, after: string, limit: number): Promise<KeyRecord[]> {
  const { rows } = await pool.query<KeyRecord>(
    'SELECT id, tenant_id, scopes, name, created_at, revoked_at FROM api_keys WHERE id > $1 ORDER BY id LIMIT $2',
    [after, limit],
  );
  return rows;
}

/** @returns false when there is no such key that is still good */
export async function revokeKey(pool: Pool, id: string): Promise<boolean> {
  const { rowCount } = await pool.query('UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL', [
    id,
  ]);
  return rowCount === 1;
}
