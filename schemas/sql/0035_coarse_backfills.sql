-- Rows that backfills wrote get coarse rows too: all their hours are stale until `meter_backfill` has made them.
INSERT INTO stale_hours (shard, hour)
  SELECT DISTINCT shard, r.bucket FROM rollups_hour AS r JOIN log_offsets AS o USING (shard) WHERE o.topic = 'backfill'
  ON CONFLICT DO NOTHING;
UPDATE log_offsets SET coarse_until = '2200-01-01Z' WHERE topic = 'backfill';
