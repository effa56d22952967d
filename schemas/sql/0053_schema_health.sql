-- What was seen of each tenant's schema, every five minutes: the history that an anomaly is told by.
CREATE TABLE schema_health (
  tenant_id uuid NOT NULL,
  at timestamptz NOT NULL,
  bytes bigint NOT NULL,
  tables int NOT NULL,
  -- statements of the tenant's role that have run for long, when we looked
  slow_queries int NOT NULL,
  -- calls and failed calls of the last hour
  events bigint NOT NULL,
  errors bigint NOT NULL,
  -- applied version, and what differs from its structure
  version bigint,
  drift int NOT NULL,
  findings jsonb NOT NULL,
  PRIMARY KEY (tenant_id, at)
);
CREATE INDEX schema_health_at ON schema_health (at);
