-- Since when a version of a meter is counted no more: its rollups are removed until nobody can be writing them.
ALTER TABLE meter_versions ADD COLUMN retired_at timestamptz;
