-- Meters that people define; the built-in ones (ids below 1001) stand in metering/builtin-meters.json.
-- A meter's meaning is a version: rollups carry the version's id. A change makes a new version, which is counted beside
-- the old one and takes over when it knows the whole past.
CREATE TABLE meters (
  key uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  slug text NOT NULL,
  -- whose events it counts, and who sees it; NULL: every tenant's
  tenant_id uuid REFERENCES tenants (id),
  name text NOT NULL,
  description text NOT NULL,
  metadata jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz
);
CREATE UNIQUE INDEX meters_slug ON meters (slug) WHERE deleted_at IS NULL;

CREATE TABLE meter_versions (
  id int GENERATED ALWAYS AS IDENTITY (START WITH 1001) PRIMARY KEY,
  meter uuid NOT NULL REFERENCES meters (key),
  -- serving: answers queries; next: is counted and takes over when complete; retired: its rollups go; removed: they are gone
  state text NOT NULL CHECK (state IN ('serving', 'next', 'retired', 'removed')),
  -- the members of `Meter` that say what is counted
  definition jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  -- since when it knows the whole past
  complete_at timestamptz
);
CREATE UNIQUE INDEX meter_versions_serving ON meter_versions (meter) WHERE state = 'serving';
CREATE UNIQUE INDEX meter_versions_next ON meter_versions (meter) WHERE state = 'next';

-- From which offset of a shard's log a version counts live; everything before is counted by the backfill job from raw
-- events, into rows of a shard of its own (`log_offsets` of the topic "backfill", partition = this shard).
CREATE TABLE meter_cuts (
  meter_id int NOT NULL,
  shard int NOT NULL,
  cut bigint NOT NULL,
  -- events before this time (event time) are backfilled
  backfilled_until timestamptz NOT NULL DEFAULT '-infinity',
  events bigint NOT NULL DEFAULT 0,
  finished_at timestamptz,
  PRIMARY KEY (meter_id, shard)
);

-- Groups of one meter and tenant: the cardinality guard counts them.
CREATE INDEX rollup_groups_meter ON rollup_groups (meter_id, tenant_id);
