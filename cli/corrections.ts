/** Where corrections of spread tenants are: the processors' owners know, by their audit rows. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Pool } from 'pg';
import type { CorrectionPlaces } from '../ingest/index.ts';
import { TidemarkError } from '../schemas/index.ts';
import { type EventLog, LogUnavailable, watchCommits } from '../sinks/index.ts';

const FIND = `
  SELECT w.by_key::text AS key, o.partition FROM withdrawals AS w JOIN log_offsets AS o USING (shard)
  WHERE o.topic = $1 AND w.by_key = ANY ($2::uuid[])`;
/** How long a correction waits for what was sent before it. */
const PATIENCE_MS = 5_000;
const LOOK_MS = 20;

export function createCorrectionPlaces(pool: Pool, log: EventLog): CorrectionPlaces {
  const find = async (claimKeys: readonly string[]) => {
    const { rows } = await pool.query<{ key: string; partition: number }>(FIND, [log.topic, claimKeys]);
    return new Map(rows.map((row) => [row.key, row.partition]));
  };
  return {
    find: async (claimKeys) => {
      const settled = await watchCommits(pool, log).catch((cause: unknown) => {
        if (!(cause instanceof LogUnavailable)) throw cause;
        throw new TidemarkError('log_unavailable', cause.message, { headers: { 'retry-after': '1' }, cause });
      });
      const deadline = performance.now() + PATIENCE_MS;
      for (;;) {
        const all = await settled();
        const found = await find(claimKeys);
        if (all || found.size === claimKeys.length) return found;
        if (performance.now() > deadline)
          throw new TidemarkError('overloaded', 'what was sent before the correction is not processed yet: try again', {
            headers: { 'retry-after': '5' },
          });
        await delay(LOOK_MS);
      }
    },
  };
}
