import { randomBytes } from 'node:crypto';
import type { Pool } from 'pg';
import { SCOPES, type Scope, type Tenant, TidemarkError, type Tier } from '../../schemas/index.ts';
import { generateKey, quoteIdentifier } from '../../sinks/index.ts';
import { tierConfiguration } from '../configuration.ts';
import { loginRoleOf } from '../schema/names.ts';
import { platformRoles } from '../schema/platform-roles.ts';
import { scramVerifier } from '../schema/scram.ts';
import { limitRole, ROLE_LIMITS } from '../schema/tenant-schema.ts';
import type { SecretBox } from '../secrets/cipher.ts';
import { changeTenant, readTenant, requireHere, requireMain, setLogin } from './state.ts';

/** Ingest and SQL are refused from now on; what is stored stays readable. Idempotent. */
export function suspendTenant(pool: Pool, tenantId: string): Promise<Tenant> {
  return changeTenant(pool, tenantId, async (client, locked) => {
    if (locked.tenant.status === 'deleted') throw new TidemarkError('tenant_deleted', 'the tenant is deleted');
    requireHere(locked);
    await client.query(`UPDATE tenants SET status = 'suspended' WHERE id = $1`, [tenantId]);
    await setLogin(client, locked, false);
    return readTenant(client, tenantId);
  });
}

/** Ends a suspension, or takes a deletion back while its grace period lasts. Idempotent. */
export function resumeTenant(pool: Pool, tenantId: string): Promise<Tenant> {
  return changeTenant(pool, tenantId, async (client, locked) => {
    requireHere(locked);
    // A deletion that is taken back leaves an archived tenant archived.
    const { rowCount: archived } = await client.query('SELECT FROM tenant_archives WHERE tenant_id = $1', [tenantId]);
    await client.query('UPDATE tenants SET status = $2, delete_after = NULL WHERE id = $1', [
      tenantId,
      archived === 1 ? 'archived' : locked.provisioned ? 'ready' : 'discovered',
    ]);
    await setLogin(client, locked, archived !== 1);
    return readTenant(client, tenantId);
  });
}

/**
 * Marks a tenant for its purge after `graceDays`; until then nothing is lost and `resumeTenant` takes it back. Its keys
 * and its role stop working at once.
 */
export function deleteTenant(
  pool: Pool,
  tenantId: string,
  graceDays: number,
): Promise<{ tenant: Tenant; deleteAfter: Date }> {
  return changeTenant(pool, tenantId, async (client, locked) => {
    const { rows } = await client.query<{ delete_after: Date }>(
      `UPDATE tenants SET status = 'deleted', delete_after = now() + make_interval(days => $2) WHERE id = $1 RETURNING delete_after`,
      [tenantId, graceDays],
    );
    await setLogin(client, locked, false);
    return { tenant: await readTenant(client, tenantId), deleteAfter: rows[0]?.delete_after ?? new Date() };
  });
}

export interface TenantChange {
  slug?: string | undefined;
  name?: string | undefined;
  email?: string | null | undefined;
  tier?: Exclude<Tier, 'discovered'> | undefined;
  /** by name; null: as the tier says */
  features?: Record<string, boolean | null> | undefined;
}

/**
 * Renames, moves to another tier, switches features: all or nothing.
 * @throws TidemarkError `conflict` when the slug is taken, `tenant_unprovisioned` for what needs provisioning
 */
export async function updateTenant(pool: Pool, tenantId: string, change: TenantChange): Promise<Tenant> {
  try {
    return await changeTenant(pool, tenantId, async (client, locked) => {
      requireHere(locked);
      const { tenant, provisioned, shard } = locked;
      const { slug, name, email, tier, features } = change;
      if (!provisioned)
        throw new TidemarkError('tenant_unprovisioned', 'only events have made the tenant known: provision it first');
      await client.query(
        `UPDATE tenants SET slug = coalesce($2, slug), name = coalesce($3, name), tier = coalesce($4, tier),
           email = CASE WHEN $5 THEN $6 ELSE email END WHERE id = $1`,
        [tenantId, slug ?? null, name ?? null, tier ?? null, email !== undefined, email ?? null],
      );
      if (tier !== undefined && tier !== tenant.tier) {
        requireMain(shard);
        await client.query(limitRole(tenantId, ROLE_LIMITS[tier], await platformRoles(client)));
        const { limits, features: given } = tierConfiguration(tier);
        await client.query(
          'UPDATE tenant_settings SET limits = $2, features = features || $3, updated_at = now() WHERE tenant_id = $1',
          [tenantId, limits, given],
        );
      }
      if (features !== undefined) {
        const byTier = tierConfiguration(tier ?? (tenant.tier === 'discovered' ? 'standard' : tenant.tier)).features;
        const set = Object.entries(features).map(([key, on]) => [key, on ?? byTier[key] ?? null] as const);
        await client.query(
          'UPDATE tenant_settings SET features = jsonb_strip_nulls(features || $2), updated_at = now() WHERE tenant_id = $1',
          [tenantId, Object.fromEntries(set)],
        );
      }
      return readTenant(client, tenantId);
    });
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === '23505')
      throw new TidemarkError('conflict', `slug ${change.slug} is taken`, { cause: error });
    throw error;
  }
}

/** A key that takes the place of all others. */
export interface RotatedKeys {
  id: string;
  scopes: Scope[];
  /** shown once */
  secret: string;
  /** ids of the keys that it replaces */
  replaces: string[];
}

const RETIRE = `
  UPDATE api_keys SET revoked_at = now() + make_interval(secs => $2)
  WHERE tenant_id = $1 AND (revoked_at IS NULL OR revoked_at > now()) RETURNING id, scopes`;

/**
 * One new key with the scopes of all that were good; those go on working for `graceSeconds`. The role's password is new
 * at once: who connects by SQL asks for it again.
 */
export function rotateKeys(
  { pool, secrets }: { pool: Pool; secrets: SecretBox },
  tenantId: string,
  graceSeconds: number,
): Promise<RotatedKeys> {
  return changeTenant(pool, tenantId, async (client, locked) => {
    requireHere(locked);
    const { provisioned, shard } = locked;
    requireMain(shard);
    const { rows: old } = await client.query<{ id: string; scopes: Scope[] }>(RETIRE, [tenantId, graceSeconds]);
    const held = new Set(old.flatMap((key) => key.scopes));
    const scopes =
      held.size === 0 ? SCOPES.filter((scope) => scope !== 'admin') : SCOPES.filter((one) => held.has(one));
    const { id, secret, sha256 } = generateKey();
    await client.query(
      'INSERT INTO api_keys (id, tenant_id, scopes, name, secret_sha256) VALUES ($1, $2, $3, $4, $5)',
      [id, tenantId, scopes, 'rotated key', sha256],
    );
    if (provisioned) {
      const password = randomBytes(24).toString('base64url');
      await client.query('UPDATE tenant_schemas SET secret = $2 WHERE tenant_id = $1', [
        tenantId,
        secrets.seal(password, `tenant_schemas/${tenantId}`),
      ]);
      await client.query(`ALTER ROLE ${quoteIdentifier(loginRoleOf(tenantId))} PASSWORD '${scramVerifier(password)}'`);
    }
    return { id, scopes, secret, replaces: old.map((key) => key.id) };
  });
}
