-- Where the archive of each UTC day is. A manifest is pending from when it is written until its files were read back and
-- the day's rows have left the database, in one transaction; readers go by `manifest` alone.
CREATE TABLE archive_days (
  day date PRIMARY KEY,
  state text NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'written', 'verified', 'detached', 'archived')),
  -- what readers see: the exact text that the store has, its SHA-256 (hex) and its version there
  manifest text,
  manifest_sha256 text,
  manifest_etag text,
  pending text,
  pending_sha256 text,
  pending_etag text,
  -- detached chunks that are still to be dropped
  chunks text[] NOT NULL DEFAULT '{}',
  verified_at timestamptz,
  archived_at timestamptz,
  error text,
  -- whoever holds the lease works on the day; `epoch` fences out those that held it before
  epoch bigint NOT NULL DEFAULT 0,
  lease_until timestamptz NOT NULL DEFAULT '-infinity',
  updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK ((manifest IS NULL) = (manifest_sha256 IS NULL)),
  CHECK ((pending IS NULL) = (pending_sha256 IS NULL))
);
-- Rows of a day and shard below `next` are in the archive that readers see: what is left of them in the database counts no more.
CREATE TABLE archive_positions (
  day date NOT NULL REFERENCES archive_days (day) ON DELETE CASCADE,
  shard int NOT NULL,
  next bigint NOT NULL,
  PRIMARY KEY (day, shard)
);
