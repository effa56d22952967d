-- A run that is being merged together, or that has been replaced or has expired: nothing is looked up in it, and its
-- pages go a slice at a time.
ALTER TABLE dedupe_runs ADD COLUMN garbage boolean NOT NULL DEFAULT false;
