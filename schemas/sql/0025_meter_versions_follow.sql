-- A tenant that is purged takes its own meters with it, every version of them.
ALTER TABLE meter_versions DROP CONSTRAINT meter_versions_meter_fkey;
ALTER TABLE meter_versions ADD CONSTRAINT meter_versions_meter_fkey
  FOREIGN KEY (meter) REFERENCES meters (key) ON DELETE CASCADE;
