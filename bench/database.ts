import pg from 'pg';
import { BUILTIN_METERS } from '../metering/index.ts';
import { TIME_TABLES } from '../schemas/index.ts';
import { detectEngine, startEmbeddedPostgres } from '../sinks/index.ts';

const DAYS = 30;
const DAY = 86_400_000;

/** The database of a running bench server, for yardsticks and for data that would take a month to come in. */
export async function openEmbeddedPostgresPool(data: string) {
  const server = await startEmbeddedPostgres(`${data}/postgres`);
  const pool = new pg.Pool({
    connectionString: server.url,
    options: '-c search_path=tidemark -c timezone=UTC',
    max: 2,
  });
  const to = Math.floor(Date.now() / DAY) * DAY;
  const from = to - DAYS * DAY;
  const iso = (ms: number) => new Date(ms).toISOString();

  return {
    range: `from=${iso(from)}&to=${iso(to)}`,
    /** Rows/s of COPY of the same raw rows into a table like theirs, committed in batches of 20,000. */
    bareCopyRate: async (most: number): Promise<number> => {
      await pool.query('DROP TABLE IF EXISTS bench_copy; CREATE TABLE bench_copy (LIKE events INCLUDING DEFAULTS)');
      await pool.query(`COPY (SELECT * FROM events LIMIT ${most}) TO '/tmp/tidemark-bench.copy' (FORMAT binary)`);
      const began = performance.now();
      await pool.query(`COPY bench_copy FROM '/tmp/tidemark-bench.copy' (FORMAT binary)`);
      const seconds = (performance.now() - began) / 1000;
      const { rows } = await pool.query<{ n: number }>('SELECT count(*)::float8 AS n FROM bench_copy');
      await pool.query('DROP TABLE bench_copy');
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
    /** 30 days of hour rollups: `tenants` × 5 endpoints, a sum and a sketch of 40 bins each. */
    fillMonth: async (tenants: number): Promise<void> => {
      const client = await pool.connect();
      const engine = await detectEngine(pool);
      const hours = Array.from({ length: DAYS }, (_, i) => from + i * DAY);
      await engine.ensureChunks(client, TIME_TABLES.rollups_hour, hours);
      await client.query(
        `INSERT INTO tenants (customer_id, name, tier, status) SELECT 'tenant_' || lpad(i::text, 4, '0'), 'bench', 'discovered', 'discovered' FROM generate_series(0, $1 - 1) AS i`,
        [tenants],
      );
      await client.query(`UPDATE log_offsets SET folded_until = $1, watermark = $1`, [iso(to)]);
      for (const meter of [2, 3]) {
        await client.query(
          `INSERT INTO rollup_groups (group_key, tenant_id, meter_id, values)
           SELECT md5(t.id::text || $1::int || e)::uuid, t.id, $1::int, ARRAY['/e' || e, NULL] FROM tenants AS t, generate_series(1, 5) AS e`,
          [meter],
        );
        await client.query(
          `INSERT INTO rollups_hour (bucket, meter_id, shard, tenant_id, group_key, count, sum, min, max, bins, bin_counts)
           SELECT h, $1::int, (SELECT min(shard) FROM log_offsets), g.tenant_id, g.group_key, 1000, 123456, 1, 999, b.bins, b.counts
           FROM generate_series($2::timestamptz, $3::timestamptz - interval '1 hour', interval '1 hour') AS h, rollup_groups AS g,
             (SELECT CASE WHEN $1::int = 2 THEN array_agg(4300 + i) END AS bins, CASE WHEN $1::int = 2 THEN array_agg(25::bigint) END AS counts FROM generate_series(1, 40) AS i) AS b
           WHERE g.meter_id = $1`,
          [meter, iso(from), iso(to)],
        );
      }
      await client.query('ANALYZE');
      client.release();
    },
    close: () => pool.end(),
  };
}
