-- One tenant of a run, and how far it is: `step` is the last one that was begun. `before` is the snapshot of versions and
-- structure that a failure goes back to.
CREATE TABLE migration_targets (
  run_id uuid NOT NULL REFERENCES migration_runs (id) ON DELETE CASCADE,
  tenant_id uuid NOT NULL,
  -- in the order in which they come
  position int NOT NULL,
  wave int NOT NULL,
  status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'running', 'succeeded', 'failed', 'skipped')),
  step text,
  before jsonb,
  attempt int NOT NULL DEFAULT 0,
  error text,
  started_at timestamptz,
  ended_at timestamptz,
  PRIMARY KEY (run_id, tenant_id)
);
CREATE INDEX migration_targets_tenant ON migration_targets (tenant_id);
