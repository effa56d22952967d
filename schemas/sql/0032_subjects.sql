-- What OpenMeter's clients keep of a subject, beside the tenant that it is. A deleted subject is no longer listed; its
-- usage, its tenant and its keys stay.
CREATE TABLE subjects (
  tenant_id uuid PRIMARY KEY REFERENCES tenants (id),
  metadata jsonb,
  stripe_customer_id text,
  current_period_start timestamptz,
  current_period_end timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz
);
