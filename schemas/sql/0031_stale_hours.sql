-- Hours before `coarse_until` have coarse rows, except those listed in stale_hours: their hour rows were changed since.
-- Whoever changes a folded hour's rows lists the hour in the same transaction; reading then takes hour rows instead of
-- coarse ones for it, so it is exact at every commit, and the shard's owner makes the coarse rows again.
ALTER TABLE log_offsets ADD COLUMN coarse_until timestamptz NOT NULL DEFAULT '-infinity';
CREATE TABLE stale_hours (
  shard int NOT NULL,
  hour timestamptz NOT NULL,
  PRIMARY KEY (shard, hour)
);
