import type { Pool } from 'pg';
import { daysWithFiles } from '../archive/day-state.ts';
import { manifestKey, tagsOf } from '../layout.ts';
import type { Manifest } from '../manifest.ts';
import type { TieringDeps } from '../ports.ts';

export interface LegalHold {
  tenant_id: string;
  reason: string;
  held_at: string;
}

export async function listHolds(pool: Pool): Promise<LegalHold[]> {
  const { rows } = await pool.query<{ tenant_id: string; reason: string; held_at: Date }>(
    'SELECT tenant_id, reason, held_at FROM legal_holds ORDER BY held_at',
  );
  return rows.map((row) => ({ ...row, held_at: row.held_at.toISOString() }));
}

/** Keeps every day with events of the tenant from expiring, past and to come. @returns days tagged */
export async function holdTenant(deps: TieringDeps, tenantId: string, reason: string): Promise<number> {
  await deps.pool.query(
    'INSERT INTO legal_holds (tenant_id, reason) VALUES ($1, $2) ON CONFLICT (tenant_id) DO UPDATE SET reason = excluded.reason',
    [tenantId, reason],
  );
  return tagDays(deps, (manifest) => tenantId in manifest.tenants);
}

/** @returns days that may expire again: no other held tenant is in them */
export async function releaseTenant(deps: TieringDeps, tenantId: string): Promise<number> {
  await deps.pool.query('DELETE FROM legal_holds WHERE tenant_id = $1', [tenantId]);
  return tagDays(deps, (manifest) => tenantId in manifest.tenants);
}

/** Whether a day is held now. */
export async function isHeld(pool: Pool, tenantIds: readonly string[]): Promise<boolean> {
  const { rows } = await pool.query('SELECT 1 FROM legal_holds WHERE tenant_id = ANY ($1::uuid[]) LIMIT 1', [
    tenantIds,
  ]);
  return rows.length > 0;
}

async function tagDays({ pool, store }: TieringDeps, isConcerned: (manifest: Manifest) => boolean): Promise<number> {
  let count = 0;
  for (const { day, current } of await daysWithFiles(pool, '0001-01-01', '9999-12-31')) {
    if (current === undefined || !isConcerned(current.manifest)) continue;
    const held = await isHeld(pool, Object.keys(current.manifest.tenants));
    for (const { key } of current.manifest.files) await store.tag(key, tagsOf('part', held));
    await store.tag(manifestKey(day), tagsOf('manifest', held));
    count++;
  }
  return count;
}
