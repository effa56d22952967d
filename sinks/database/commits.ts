import type { Pool } from 'pg';
import type { EventLog } from '../log/index.ts';

const NEXT = 'SELECT partition, next::float8 AS next FROM log_offsets WHERE topic = $1';

/**
 * Remembers how far the log reaches now. @returns whether commits have covered it, each time it is asked
 * @throws LogUnavailable
 */
export async function watchCommits(pool: Pool, log: EventLog): Promise<() => Promise<boolean>> {
  const ends = await log.ranges();
  return async () => {
    const { rows } = await pool.query<{ partition: number; next: number }>(NEXT, [log.topic]);
    const next = new Map(rows.map((row) => [row.partition, row.next]));
    return ends.every(({ partition, end }) => (next.get(partition) ?? 0) >= end);
  };
}
