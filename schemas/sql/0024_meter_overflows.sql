-- Meters and tenants with more groups than METER_GROUPS_MAX: further groups are counted together in the group "other".
CREATE TABLE meter_overflows (
  meter_id int NOT NULL,
  tenant_id uuid NOT NULL,
  shard int NOT NULL,
  -- groups that were folded, each as often as an owner met it anew
  folded bigint NOT NULL,
  first_at timestamptz NOT NULL DEFAULT now(),
  last_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (meter_id, tenant_id, shard)
);
