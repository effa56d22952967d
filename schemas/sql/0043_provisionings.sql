-- Provisioning of tenants as a durable workflow. A run belongs to the process whose lease has not ended (the database's
-- clock alone decides); every transaction of a step renews the lease, so a process that has lost it changes nothing.
CREATE TABLE provisionings (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  -- no foreign key: undone, the tenant is gone and its history stays
  tenant_id uuid NOT NULL,
  slug text NOT NULL,
  -- NULL again once the run has failed, so that the same request starts anew
  idempotency_key text UNIQUE,
  request_sha256 bytea NOT NULL,
  request jsonb NOT NULL,
  status text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'undoing', 'ready', 'failed')),
  error text,
  -- number of the last event
  seq int NOT NULL DEFAULT 0,
  lease_owner uuid,
  lease_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz
);
CREATE INDEX provisionings_tenant ON provisionings (tenant_id, created_at DESC);
CREATE INDEX provisionings_slug ON provisionings (slug, created_at DESC);
CREATE INDEX provisionings_open ON provisionings (lease_until) WHERE status IN ('running', 'undoing');

CREATE TABLE provisioning_steps (
  provisioning_id uuid NOT NULL REFERENCES provisionings (id) ON DELETE CASCADE,
  position int NOT NULL,
  step text NOT NULL,
  status text NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'running', 'done', 'skipped', 'failed', 'undone')),
  attempt int NOT NULL DEFAULT 0,
  started_at timestamptz,
  ended_at timestamptz,
  error text,
  PRIMARY KEY (provisioning_id, position)
);

-- What happened, in order: a stream of progress goes on after the last event that its reader has seen.
CREATE TABLE provisioning_events (
  provisioning_id uuid NOT NULL REFERENCES provisionings (id) ON DELETE CASCADE,
  seq int NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  event jsonb NOT NULL,
  PRIMARY KEY (provisioning_id, seq)
);
