-- Archived days that a backfill has passed by because they could not be read (a cold storage class, a damaged file):
-- counted when they can be. Until then the meter is incomplete there.
CREATE TABLE meter_gaps (
  meter_id int NOT NULL,
  shard int NOT NULL,
  -- UTC
  day date NOT NULL,
  -- events of the day before this time (event time) are counted
  counted_until timestamptz NOT NULL,
  -- code of the error
  reason text NOT NULL,
  PRIMARY KEY (meter_id, shard, day)
);
