-- Configuration of a provisioned tenant: what its tier gave it, and what an operator changed since.
CREATE TABLE tenant_settings (
  tenant_id uuid PRIMARY KEY REFERENCES tenants (id),
  limits jsonb NOT NULL,
  features jsonb NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- What watches a tenant: health checks, alert rules, and the heartbeat of an outside service, whose address is a secret.
CREATE TABLE tenant_monitors (
  tenant_id uuid NOT NULL REFERENCES tenants (id),
  kind text NOT NULL CHECK (kind IN ('health_check', 'alert_rule', 'heartbeat')),
  name text NOT NULL,
  definition jsonb NOT NULL,
  external_id text,
  secret bytea,
  PRIMARY KEY (tenant_id, kind, name)
);
