-- Tenants that are archived as a whole: schema and roles are in a backup of the object store. `storing`: they are still here
-- as well; `stored`: the backup was read back, and they are gone.
ALTER TABLE tenants DROP CONSTRAINT tenants_status_check;
ALTER TABLE tenants ADD CONSTRAINT tenants_status_check
  CHECK (status IN ('discovered', 'provisioning', 'ready', 'suspended', 'failed', 'deleted', 'archived'));
CREATE TABLE tenant_archives (
  tenant_id uuid PRIMARY KEY REFERENCES tenants (id),
  state text NOT NULL DEFAULT 'storing' CHECK (state IN ('storing', 'stored')),
  -- what the tenant was, and is again afterwards
  status text NOT NULL CHECK (status IN ('ready', 'suspended')),
  backup uuid,
  -- the login role's password, as tenant_schemas holds it
  secret bytea,
  reason text NOT NULL,
  requested_by text NOT NULL,
  -- of the schema in the database, and of the backup
  schema_bytes bigint NOT NULL,
  stored_bytes bigint,
  archived_at timestamptz NOT NULL DEFAULT now(),
  CHECK ((state = 'stored') = (backup IS NOT NULL)),
  CHECK ((backup IS NULL) = (secret IS NULL))
);
