-- Which tenant is billed by which plan from when to when. `closed_until` is the end of the last closed period (or the
-- start), `next_close_at` the end of the first one that is not closed; infinity: nothing is left to close.
CREATE TABLE subscriptions (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  tenant_id uuid NOT NULL REFERENCES tenants (id),
  start_at timestamptz NOT NULL,
  end_at timestamptz CHECK (end_at > start_at),
  trial_until timestamptz CHECK (trial_until > start_at),
  time_zone text NOT NULL,
  periods text NOT NULL CHECK (periods IN ('calendar', 'anniversary')),
  closed_until timestamptz NOT NULL,
  next_close_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX subscriptions_due ON subscriptions (next_close_at, id);
CREATE INDEX subscriptions_of_tenant ON subscriptions (tenant_id, id);

-- From `from_at` on, this version of a plan holds.
CREATE TABLE subscription_phases (
  subscription_id uuid NOT NULL REFERENCES subscriptions (id),
  from_at timestamptz NOT NULL,
  plan_key text NOT NULL,
  plan_version int NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (subscription_id, from_at),
  FOREIGN KEY (plan_key, plan_version) REFERENCES plans (key, version)
);
CREATE TRIGGER subscription_phases_never_change BEFORE UPDATE OR DELETE OR TRUNCATE ON subscription_phases
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
