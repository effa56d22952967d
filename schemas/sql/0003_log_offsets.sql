-- The commit point: one row a partition of the log. `next` is the first offset that no commit has covered,
-- `epoch` fences out former owners, `shard` is the partition's short name in every table that its owner writes.
-- Hours before `folded_until` (event time) have hour rollups; later ones are read from their minutes.
CREATE TABLE log_offsets (
  topic text NOT NULL,
  partition int NOT NULL,
  shard int GENERATED ALWAYS AS IDENTITY UNIQUE,
  next bigint NOT NULL DEFAULT 0,
  epoch bigint NOT NULL DEFAULT 0,
  watermark timestamptz NOT NULL DEFAULT '-infinity',
  folded_until timestamptz NOT NULL DEFAULT '-infinity',
  committed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);
