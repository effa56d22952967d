-- Who writes these archives: another database's files in the same bucket are never taken for ours.
CREATE TABLE archive_identity (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid()
);
INSERT INTO archive_identity DEFAULT VALUES;
-- Tenants whose archive must not expire.
CREATE TABLE legal_holds (
  tenant_id uuid PRIMARY KEY,
  reason text NOT NULL,
  held_at timestamptz NOT NULL DEFAULT now()
);
-- What was forgotten, for whom and by whom; resumable: `done_days` are rewritten already.
CREATE TABLE erasures (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  tenant_id uuid NOT NULL,
  -- NULL: the tenant as a whole
  user_id text,
  reason text NOT NULL,
  requested_by text NOT NULL,
  hot_rows bigint NOT NULL DEFAULT 0,
  archived_rows bigint NOT NULL DEFAULT 0,
  done_days date[] NOT NULL DEFAULT '{}',
  verified_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
);
-- Days whose minute rollups have gone: a question that cuts an hour of them has no exact answer.
CREATE TABLE archived_minutes (
  day date PRIMARY KEY,
  dropped_at timestamptz NOT NULL DEFAULT now()
);
