-- received = accepted + duplicate + dead_lettered, at every commit. The nil UUID stands for records whose tenant can't be read.
CREATE TABLE accounting (
  shard int NOT NULL,
  tenant_id uuid NOT NULL,
  received bigint NOT NULL,
  accepted bigint NOT NULL,
  duplicate bigint NOT NULL,
  dead_lettered bigint NOT NULL,
  PRIMARY KEY (shard, tenant_id),
  CHECK (received = accepted + duplicate + dead_lettered)
) WITH (fillfactor = 50);
