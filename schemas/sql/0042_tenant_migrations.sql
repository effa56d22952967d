-- What is applied in which tenant's schema.
CREATE TABLE tenant_migrations (
  schema text NOT NULL,
  version int NOT NULL,
  name text NOT NULL,
  sha256 text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (schema, version)
);
