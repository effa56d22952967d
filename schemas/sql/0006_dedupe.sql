-- The claimed idempotency keys of each shard as a log-structured set: every batch appends one block of 16-byte keys;
-- full sets of blocks are sealed into sorted runs with a Bloom filter, and runs of one level are merged into the next.
CREATE TABLE dedupe_blocks (
  shard int NOT NULL,
  -- `next` offset of the batch that claimed these keys
  block bigint NOT NULL,
  claimed_at timestamptz NOT NULL,
  keys bytea NOT NULL,
  PRIMARY KEY (shard, block)
);
ALTER TABLE dedupe_blocks ALTER COLUMN keys SET STORAGE EXTERNAL;

CREATE TABLE dedupe_runs (
  shard int NOT NULL,
  run bigint NOT NULL,
  level int NOT NULL,
  keys bigint NOT NULL,
  pages int NOT NULL,
  oldest timestamptz NOT NULL,
  newest timestamptz NOT NULL,
  filter bytea NOT NULL,
  PRIMARY KEY (shard, run)
);
ALTER TABLE dedupe_runs ALTER COLUMN filter SET STORAGE EXTERNAL;

-- Keys are uniform hashes, so a key's page is its leading 32 bits scaled to the number of pages.
CREATE TABLE dedupe_pages (
  shard int NOT NULL,
  run bigint NOT NULL,
  page int NOT NULL,
  keys bytea NOT NULL,
  PRIMARY KEY (shard, run, page)
);
ALTER TABLE dedupe_pages ALTER COLUMN keys SET STORAGE PLAIN;
