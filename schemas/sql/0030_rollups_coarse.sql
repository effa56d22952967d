-- Coarser rollups: what hour rows add up to, by day and over groups and tenants, so that a question about many of them
-- reads few rows. They are made from hour rows only and can be made again from them at any time; the shard's owner does,
-- after an hour has passed. `level` is metering/levels.ts: 4 for days, + 1 by tenant, + 2 by group. Where a level is not
-- by tenant or group, the nil UUID stands for all. `sketch`: bins and counts as metering/sketch-text.ts writes them.
CREATE TABLE rollups_coarse (
  bucket timestamptz NOT NULL,
  level int NOT NULL,
  meter_id int NOT NULL,
  shard int NOT NULL,
  tenant_id uuid NOT NULL,
  group_key uuid NOT NULL,
  count bigint NOT NULL,
  last_at timestamptz,
  last_key uuid,
  sum numeric,
  min numeric,
  max numeric,
  last numeric,
  sketch text,
  PRIMARY KEY (meter_id, level, tenant_id, bucket, group_key, shard)
) PARTITION BY RANGE (bucket);
CREATE INDEX rollups_coarse_bucket ON rollups_coarse USING brin (bucket) WITH (pages_per_range = 32, autosummarize = on);

-- Making them reads one shard's hour rows of one day.
CREATE INDEX rollups_hour_bucket ON rollups_hour USING brin (bucket) WITH (pages_per_range = 32, autosummarize = on);
