import { rmSync } from 'node:fs';
import pg from 'pg';
import { BUILTIN_METERS } from '../metering/index.ts';
import { startEmbeddedPostgres } from '../sinks/index.ts';
import { databaseOf } from './external-database.ts';

/** The database of a running bench server, for yardsticks and for data that would take a month to come in. */
export async function openEmbeddedPostgresPool(data: string) {
  const url = databaseOf(data) ?? (await startEmbeddedPostgres(`${data}/postgres`)).url;
  const pool = new pg.Pool({
    connectionString: url,
    options: '-c search_path=tidemark -c timezone=UTC',
    max: 2,
  });
  return {
    pool,
    /** Rows/s of COPY of the same raw rows into a table like theirs, committed in batches of 20,000. */
    bareCopyRate: async (most: number): Promise<number> => {
      await pool.query('DROP TABLE IF EXISTS bench_copy; CREATE TABLE bench_copy (LIKE events INCLUDING DEFAULTS)');
      await pool.query(`COPY (SELECT * FROM events LIMIT ${most}) TO '/tmp/tidemark-bench.copy' (FORMAT binary)`);
      const began = performance.now();
      await pool.query(`COPY bench_copy FROM '/tmp/tidemark-bench.copy' (FORMAT binary)`);
      const seconds = (performance.now() - began) / 1000;
      const { rows } = await pool.query<{ n: number }>('SELECT count(*)::float8 AS n FROM bench_copy');
      await pool.query('DROP TABLE bench_copy');
      rmSync('/tmp/tidemark-bench.copy', { force: true });
      return (rows[0]?.n ?? 0) / seconds;
    },
    /** @throws when a built-in meter's minutes don't add up to `expected`, sketch included; sum only where the meter keeps one */
    checkRollups: async (slug: string, expected: { count: number; sum: number }): Promise<void> => {
      const id = BUILTIN_METERS.find((meter) => meter.slug === slug)?.id;
      const { rows } = await pool.query<{ count: number; sketched: number; sum: number | null }>(
        `SELECT sum(count)::float8 AS count, sum((SELECT sum(c) FROM unnest(bin_counts) AS c))::float8 AS sketched, sum(sum)::float8 AS sum
         FROM rollups_minute WHERE meter_id = $1`,
        [id],
      );
      const found = rows[0];
      if (found?.count !== expected.count || found.sketched !== expected.count || found.sum !== expected.sum)
        throw new Error(`${slug}: ${JSON.stringify(found)}, expected ${JSON.stringify(expected)}`);
    },
    close: () => pool.end(),
  };
}
