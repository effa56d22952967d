import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { EventLog } from '../sinks/index.ts';

const EVERY_MS = 500;
const COMMITTED = 'SELECT partition, next::float8 AS next FROM log_offsets WHERE topic = $1';

export interface Lag {
  /** records that the log holds and no commit has covered, as of half a second ago */
  records(): number;
  byPartition(): ReadonlyMap<number, number>;
  stop(): void;
}

/** Watches how far processing is behind the log. While the database is away, what the log gains counts as lag. */
export function watchLag(pool: Pool, log: EventLog, logger: Logger): Lag {
  const committed = new Map<number, number>();
  const lags = new Map<number, number>();
  let total = 0;
  const look = async () => {
    try {
      const { rows } = await pool.query<{ partition: number; next: number }>(COMMITTED, [log.topic]);
      for (const row of rows) committed.set(row.partition, row.next);
    } catch (error) {
      logger.debug({ err: error }, 'lag: the database does not answer');
    }
    try {
      let sum = 0;
      for (const { partition, end } of await log.ranges()) {
        const lag = Math.max(0, end - (committed.get(partition) ?? 0));
        lags.set(partition, lag);
        sum += lag;
      }
      total = sum;
    } catch (error) {
      logger.debug({ err: error }, 'lag: the log does not answer');
    }
  };
  let busy = false;
  const timer = setInterval(async () => {
    if (busy) return;
    busy = true;
    await look();
    busy = false;
  }, EVERY_MS);
  return { records: () => total, byPartition: () => lags, stop: () => clearInterval(timer) };
}
