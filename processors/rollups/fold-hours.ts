import type { ClientBase } from 'pg';

/** Minutes of past hours become hour rows. $1 shard, $2 from, $3 to */
const FOLD_ROWS = `
  WITH minutes AS MATERIALIZED (
    SELECT date_bin('1 hour', bucket, 'epoch') AS hour, * FROM rollups_minute WHERE shard = $1 AND bucket >= $2 AND bucket < $3
  ), plain AS (
    SELECT hour, meter_id, tenant_id, group_key, sum(count)::bigint AS count, sum(sum) AS sum, min(min) AS min, max(max) AS max
    FROM minutes GROUP BY hour, meter_id, tenant_id, group_key
  ), latest AS (
    SELECT DISTINCT ON (hour, meter_id, tenant_id, group_key) hour, meter_id, tenant_id, group_key, last_at, last_key, last
    FROM minutes WHERE last_at IS NOT NULL ORDER BY hour, meter_id, tenant_id, group_key, last_at DESC, last_key DESC
  ), bins AS (
    SELECT hour, meter_id, tenant_id, group_key, array_agg(bin ORDER BY bin) AS bins, array_agg(n ORDER BY bin) AS bin_counts
    FROM (
      SELECT hour, meter_id, tenant_id, group_key, b.bin, sum(b.n)::bigint AS n
      FROM minutes, unnest(bins, bin_counts) AS b(bin, n)
      WHERE bin_counts IS NOT NULL
      GROUP BY 1, 2, 3, 4, 5
    ) AS merged
    GROUP BY hour, meter_id, tenant_id, group_key
  ), levels AS (
    SELECT hour, meter_id, tenant_id, group_key, array_agg(v.level ORDER BY bucket, v.at) AS levels,
           array_agg(v.at + (extract(epoch FROM bucket - hour) * 1000)::int ORDER BY bucket, v.at) AS offsets
    FROM minutes AS m, unnest(m.bins, m.levels) AS v(at, level)
    WHERE m.levels IS NOT NULL
    GROUP BY hour, meter_id, tenant_id, group_key
  )
  INSERT INTO rollups_hour (bucket, meter_id, shard, tenant_id, group_key, count, last_at, last_key, sum, min, max, last, bins, bin_counts, levels)
  SELECT hour, meter_id, $1, tenant_id, group_key, p.count, l.last_at, l.last_key, p.sum, p.min, p.max, l.last, coalesce(b.bins, v.offsets), b.bin_counts, v.levels
  FROM plain AS p
  LEFT JOIN latest AS l USING (hour, meter_id, tenant_id, group_key)
  LEFT JOIN bins AS b USING (hour, meter_id, tenant_id, group_key)
  LEFT JOIN levels AS v USING (hour, meter_id, tenant_id, group_key)`;

const FOLD_MEMBERS = `
  INSERT INTO members_hour (bucket, batch, meter_id, shard, tenant_id, group_key, members)
  SELECT date_bin('1 hour', m.bucket, 'epoch'), 0, m.meter_id, $1, m.tenant_id, m.group_key, array_agg(DISTINCT v.member)
  FROM members_minute AS m, unnest(m.members) AS v(member)
  WHERE m.shard = $1 AND m.bucket >= $2 AND m.bucket < $3
  GROUP BY 1, 3, 5, 6`;

/** Hours in [from, to) that this shard has minutes of: the chunks that folding needs. */
export const HOURS_TO_FOLD = `
  SELECT DISTINCT (extract(epoch FROM date_bin('1 hour', bucket, 'epoch')) * 1000)::float8 AS hour
  FROM (SELECT bucket FROM rollups_minute WHERE shard = $1 AND bucket >= $2 AND bucket < $3
        UNION ALL SELECT bucket FROM members_minute WHERE shard = $1 AND bucket >= $2 AND bucket < $3) AS m`;

/**
 * Folds the minutes of whole hours [from, to) into hour rows, within the caller's fenced transaction.
 * Late events of these hours change both resolutions from then on.
 */
export async function foldHours(
  client: ClientBase,
  shard: number,
  range: { from: Date | '-infinity'; to: Date },
): Promise<void> {
  await client.query(FOLD_ROWS, [shard, range.from, range.to]);
  await client.query(FOLD_MEMBERS, [shard, range.from, range.to]);
}
