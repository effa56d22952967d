-- The schema and roles of each provisioned tenant. Names carry only the UUID. `secret` is the login role's password,
-- encrypted (AES-256-GCM; TIDEMARK_SECRET_KEY).
CREATE TABLE tenant_schemas (
  tenant_id uuid PRIMARY KEY REFERENCES tenants (id),
  schema text NOT NULL UNIQUE CHECK (schema ~ '^tenant_[0-9a-f]{32}$'),
  secret bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
