-- Events that were voided or replaced, by whom and why: they stand in the raw events, but count no more.
-- Written by the owner of the shard in the transaction that takes them out of the rollups.
CREATE TABLE withdrawals (
  shard int NOT NULL,
  -- of the void or the correcting event
  log_offset bigint NOT NULL,
  action text NOT NULL CHECK (action IN ('void', 'replace')),
  tenant_id uuid NOT NULL,
  -- claim key of the withdrawn event, and its time; NULL until it arrives
  key uuid NOT NULL,
  event_at timestamptz,
  -- claim key of the void or the correcting event
  by_key uuid NOT NULL,
  idempotency_key text NOT NULL,
  source text,
  actor text,
  reason text,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (shard, log_offset)
);
CREATE INDEX withdrawals_key ON withdrawals (shard, key);
CREATE INDEX withdrawals_tenant ON withdrawals (tenant_id, created_at);
