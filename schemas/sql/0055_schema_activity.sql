-- When the count of a tenant's events last changed: who is inactive.
CREATE TABLE schema_activity (
  tenant_id uuid PRIMARY KEY,
  received bigint NOT NULL,
  changed_at timestamptz NOT NULL
);
