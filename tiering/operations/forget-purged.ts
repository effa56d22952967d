/** What the archive holds of tenants that were purged (see tenants/lifecycle/purge.ts). */
import { TidemarkError } from '../../schemas/index.ts';
import { daysWithFiles } from '../archive/day-state.ts';
import type { Day } from '../layout.ts';
import type { Progress, TieringDeps } from '../ports.ts';
import { eraseDay } from './erase.ts';

export interface ForgetResult extends Record<string, unknown> {
  /** tenants of whom nothing is left */
  forgotten: string[];
  rows: number;
  /** days in a cold storage class: restore them, the next run takes them */
  frozen: Day[];
  /** days that another archiver has, or that are being archived: the next run takes them */
  busy: Day[];
}

// A hold may have come after the purge.
const OPEN = `
  SELECT tenant_id, purged_at FROM purged_archives
  WHERE forgotten_at IS NULL AND tenant_id NOT IN (SELECT tenant_id FROM legal_holds) ORDER BY purged_at`;
const COUNT = 'UPDATE purged_archives SET archived_rows = archived_rows + $2 WHERE tenant_id = $1';
const DONE = 'UPDATE purged_archives SET forgotten_at = now() WHERE tenant_id = $1 AND purged_at = $2';

/**
 * Writes files anew without what was received of purged tenants before their purge, as an erasure does. What a recall has
 * brought back meanwhile goes too. Safe to run again after a crash at any point.
 */
export async function forgetPurged(deps: TieringDeps, run: Progress): Promise<ForgetResult> {
  const { pool } = deps;
  const result: ForgetResult = { forgotten: [], rows: 0, frozen: [], busy: [] };
  const { rows: open } = await pool.query<{ tenant_id: string; purged_at: Date }>(OPEN);
  if (open.length === 0) return result;
  const left = new Set<string>();
  for (const { day, current, pending } of await daysWithFiles(pool, '0001-01-01', '9999-12-31'))
    for (const { tenant_id: tenantId, purged_at: receivedBefore } of open) {
      run.signal.throwIfAborted();
      if (![current, pending].some((one) => one !== undefined && tenantId in one.manifest.tenants)) continue;
      try {
        const removed = await eraseDay(deps, day, { tenantId, userId: null, receivedBefore });
        if (removed === 'frozen') {
          result.frozen.push(day);
          left.add(tenantId);
          continue;
        }
        result.rows += removed;
        await pool.query(COUNT, [tenantId, removed]);
      } catch (error) {
        if (!(error instanceof TidemarkError && error.code === 'archive_busy')) throw error;
        result.busy.push(day);
        left.add(tenantId);
      }
      await run.progress({ day, rows: result.rows });
    }
  for (const { tenant_id: tenantId, purged_at: purgedAt } of open.filter((one) => !left.has(one.tenant_id))) {
    await pool.query('DELETE FROM events WHERE tenant_id = $1 AND received_at < $2', [tenantId, purgedAt]);
    await pool.query(DONE, [tenantId, purgedAt]);
    result.forgotten.push(tenantId);
  }
  result.frozen = [...new Set(result.frozen)];
  result.busy = [...new Set(result.busy)];
  return result;
}
