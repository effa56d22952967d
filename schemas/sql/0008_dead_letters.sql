-- Records that can't be applied, with the reason (a code of the error catalogue) and the original bytes.
CREATE TABLE dead_letters (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  shard int NOT NULL,
  log_offset bigint NOT NULL,
  tenant_id uuid NOT NULL,
  reason text NOT NULL,
  detail text NOT NULL,
  payload bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  requeued_at timestamptz,
  UNIQUE (shard, log_offset)
);
