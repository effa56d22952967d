-- A tenant on its way from one shard to another; the row ends with it. `step` is the last one begun.
CREATE TABLE tenant_moves (
  tenant_id uuid PRIMARY KEY,
  from_shard text NOT NULL REFERENCES shards (id),
  to_shard text NOT NULL REFERENCES shards (id),
  step text NOT NULL DEFAULT 'close',
  started_at timestamptz NOT NULL DEFAULT now(),
  CHECK (from_shard <> to_shard)
);
