import { TIME_TABLES } from '../../schemas/index.ts';
import { quoteIdentifier, withTransaction } from '../../sinks/index.ts';
import { type Day, dayOf } from '../layout.ts';
import type { TieringDeps } from '../ports.ts';

const DAY_MS = 86_400_000;
const TABLES = [TIME_TABLES.rollups_minute, TIME_TABLES.members_minute];
const RECALLED = 'SELECT FROM archive_days WHERE day = ANY ($1::date[]) AND recalled_until IS NOT NULL';

/**
 * Drops minute rollups before `before`; the hours that were folded from them stay. A chunk with minutes that are not
 * folded yet stays too, nothing else has them, and so does one of a day that is back: with its raw events it goes.
 * @param before Unix ms @returns days whose minutes have gone
 */
export async function dropMinutes({ pool, engine, logger }: TieringDeps, before: number): Promise<Day[]> {
  const gone = new Set<Day>();
  for (const table of TABLES) {
    const chunks = await engine.listChunks(pool, table);
    for (const chunk of chunks.filter((one) => one.to <= before)) {
      const days: Day[] = [];
      for (let at = Math.floor(chunk.from / DAY_MS) * DAY_MS; at < chunk.to; at += DAY_MS) days.push(dayOf(at));
      try {
        const isDropped = await withTransaction(pool, async (tx) => {
          await tx.query('SET LOCAL lock_timeout = 250');
          await tx.query(`LOCK TABLE ${quoteIdentifier(chunk.name)} IN SHARE MODE`);
          const { rows } = await tx.query(
            `SELECT 1 FROM ${quoteIdentifier(chunk.name)} AS m JOIN log_offsets AS o USING (shard) WHERE m.bucket >= o.folded_until LIMIT 1`,
          );
          if (rows.length > 0) return false;
          const { rowCount } = await tx.query(RECALLED, [days]);
          if (rowCount !== 0) return false;
          await tx.query('INSERT INTO archived_minutes (day) SELECT unnest($1::date[]) ON CONFLICT DO NOTHING', [days]);
          await engine.dropChunk(tx, chunk);
          return true;
        });
        if (isDropped) for (const day of days) gone.add(day);
      } catch (error) {
        engine.forget();
        // Another run may have it; what stays now goes next time.
        logger.warn({ chunk: chunk.name, err: error }, 'minute rollups stay for now');
      }
    }
  }
  return [...gone].sort();
}
