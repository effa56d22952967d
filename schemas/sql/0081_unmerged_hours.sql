-- Coarse rows that don't tell tenants apart are one a shard; added up over all shards they have `level` + 8 and shard -1
-- (processors/rollups/merge-shards.ts). Hours listed here have none of these, or old ones: whoever makes a shard's coarse
-- rows lists their hours in the same transaction, or raises `version` where they are listed.
CREATE TABLE unmerged_hours (
  hour timestamptz PRIMARY KEY,
  version bigint NOT NULL DEFAULT 0
);
-- Every meter with coarse rows has some of level 0.
INSERT INTO unmerged_hours (hour) SELECT DISTINCT bucket FROM rollups_coarse WHERE level = 0;
-- One merge at a time.
INSERT INTO control_locks (name) VALUES ('merge_shards');

-- A day whose last hours were empty went without its rows by day: they are made with its last hour, as if that were stale.
INSERT INTO stale_hours (shard, hour)
  SELECT r.shard, max(r.bucket) FROM rollups_coarse AS r JOIN log_offsets AS o USING (shard)
  WHERE r.level = 0 AND date_bin('1 day', r.bucket, 'epoch') + interval '1 day' <= o.coarse_until
    AND NOT EXISTS (
      SELECT FROM rollups_coarse AS d
      WHERE d.meter_id = r.meter_id AND d.level = 4 AND d.tenant_id = r.tenant_id AND d.bucket = date_bin('1 day', r.bucket, 'epoch')
        AND d.group_key = r.group_key AND d.shard = r.shard)
  GROUP BY r.shard, date_bin('1 day', r.bucket, 'epoch')
  ON CONFLICT DO NOTHING;
