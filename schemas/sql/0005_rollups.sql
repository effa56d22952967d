-- Rollups: one row a meter, tenant, group, window and shard, written as absolute values by the shard's only owner.
-- `bins`/`bin_counts`: for PERCENTILE the DDSketch (ascending bins, see sketch_value); for PEAK the net change at each
-- millisecond since the bucket's start. Distinct values stand in members_*: chunks that may repeat a value, so read DISTINCT.
CREATE TABLE rollup_groups (
  -- first 128 bits of SHA-256 over tenant, meter and values: known without asking the database
  group_key uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  meter_id int NOT NULL,
  -- in the order of the meter's groupBy; NULL where the event had no such attribute
  values text[] NOT NULL
);

CREATE TABLE rollups_minute (
  bucket timestamptz NOT NULL,
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
  bins int[],
  bin_counts bigint[],
  PRIMARY KEY (meter_id, tenant_id, bucket, group_key, shard)
) PARTITION BY RANGE (bucket);

-- Folding an hour reads one shard's rows of that hour.
CREATE INDEX rollups_minute_bucket ON rollups_minute USING brin (bucket) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE rollups_hour (
  LIKE rollups_minute INCLUDING DEFAULTS,
  PRIMARY KEY (meter_id, tenant_id, bucket, group_key, shard)
) PARTITION BY RANGE (bucket);

CREATE TABLE members_minute (
  bucket timestamptz NOT NULL,
  -- `next` offset of the batch that first saw these values
  batch bigint NOT NULL,
  meter_id int NOT NULL,
  shard int NOT NULL,
  tenant_id uuid NOT NULL,
  group_key uuid NOT NULL,
  members text[] NOT NULL,
  PRIMARY KEY (meter_id, tenant_id, bucket, group_key, shard, batch)
) PARTITION BY RANGE (bucket);

CREATE INDEX members_minute_bucket ON members_minute USING brin (bucket) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE members_hour (
  LIKE members_minute INCLUDING DEFAULTS,
  PRIMARY KEY (meter_id, tenant_id, bucket, group_key, shard, batch)
) PARTITION BY RANGE (bucket);
