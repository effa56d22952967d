-- Tenants whose rows in the archive are still to be forgotten: a purge writes them down, and ends without waiting for files.
-- Who came back under the same UUID keeps what was received since.
CREATE TABLE purged_archives (
  tenant_id uuid PRIMARY KEY,
  purged_at timestamptz(3) NOT NULL DEFAULT now(),
  archived_rows bigint NOT NULL DEFAULT 0,
  forgotten_at timestamptz
);
-- Also those that were purged before.
INSERT INTO purged_archives (tenant_id, purged_at) SELECT id, purged_at FROM tenants WHERE purged_at IS NOT NULL;
