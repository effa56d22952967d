import type { Pool } from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import type { SecretBox } from '../secrets/cipher.ts';
import { loginRoleOf } from './names.ts';

/**
 * The connection URL of a tenant's own role.
 * @param databaseUrl the platform's own URL: host, port, database and TLS parameters are the same
 * @throws TidemarkError `tenant_unprovisioned` | `secret_unreadable`
 */
export async function tenantUrl(
  { pool, secrets, databaseUrl }: { pool: Pool; secrets: SecretBox; databaseUrl: string },
  tenantId: string,
): Promise<string> {
  const { rows } = await pool.query<{ secret: Buffer }>('SELECT secret FROM tenant_schemas WHERE tenant_id = $1', [
    tenantId,
  ]);
  if (rows[0] === undefined) throw new TidemarkError('tenant_unprovisioned', 'the tenant has no schema of its own');
  const url = new URL(databaseUrl);
  url.username = loginRoleOf(tenantId);
  url.password = secrets.open(rows[0].secret, `tenant_schemas/${tenantId}`);
  return url.toString();
}
