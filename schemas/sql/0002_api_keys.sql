-- Keys are shown once and stored as SHA-256. `tenant_id` NULL: a platform key.
CREATE TABLE api_keys (
  id text PRIMARY KEY,
  tenant_id uuid REFERENCES tenants (id),
  scopes text[] NOT NULL CHECK (scopes <@ ARRAY['ingest', 'read', 'admin'] AND cardinality(scopes) > 0),
  name text,
  secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
  created_at timestamptz NOT NULL DEFAULT now(),
  revoked_at timestamptz
);
