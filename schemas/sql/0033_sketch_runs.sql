-- `rollups_coarse.sketch` is written as runs of bins (metering/sketch-text.ts): half of the characters. What was written
-- before is made again from the hour rows, a day at a time, by the shards' owners; until then queries read hour rows.
TRUNCATE rollups_coarse;
UPDATE log_offsets SET coarse_until = '-infinity';
