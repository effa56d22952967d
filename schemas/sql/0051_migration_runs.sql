-- One change of all tenants' schemas. It belongs to the process whose lease has not ended; the lease is a row, so a killed
-- process loses it by itself.
CREATE TABLE migration_runs (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  kind text NOT NULL CHECK (kind IN ('apply', 'rollback')),
  strategy text NOT NULL CHECK (strategy IN ('in_place', 'blue_green')),
  status text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'paused', 'succeeded', 'failed')),
  -- what a rollback takes back
  undoes uuid REFERENCES migration_runs (id),
  -- to be applied or undone, ascending
  versions bigint[] NOT NULL,
  plan jsonb NOT NULL,
  options jsonb NOT NULL,
  -- failures in a row, over all tenants
  failures int NOT NULL DEFAULT 0,
  error text,
  lease_owner uuid,
  lease_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  ended_at timestamptz
);
-- One at a time: a second one would plan against structures that the first is changing.
CREATE UNIQUE INDEX migration_runs_open ON migration_runs ((true)) WHERE status IN ('running', 'paused');
CREATE INDEX migration_runs_created ON migration_runs (created_at, id);
