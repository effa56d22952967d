-- PEAK and TIME_WEIGHTED_AVG: `bins` are milliseconds since the bucket's start, `levels` what happened there, exactly:
-- the highest level reported at that millisecond (gauge), or the net change (delta).
ALTER TABLE rollups_minute ADD COLUMN levels numeric[];
ALTER TABLE rollups_hour ADD COLUMN levels numeric[];
UPDATE rollups_minute SET levels = bin_counts::numeric[], bin_counts = NULL WHERE meter_id = 10;
UPDATE rollups_hour SET levels = bin_counts::numeric[], bin_counts = NULL WHERE meter_id = 10;
