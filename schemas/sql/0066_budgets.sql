-- A tenant's budget for a billing period, and which of its thresholds a period has crossed (each told once).
CREATE TABLE budgets (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  tenant_id uuid NOT NULL REFERENCES tenants (id),
  currency text NOT NULL,
  amount numeric NOT NULL CHECK (amount > 0),
  -- per cent of the amount
  thresholds int[] NOT NULL CHECK (cardinality(thresholds) > 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  removed_at timestamptz
);
CREATE INDEX budgets_of_tenant ON budgets (tenant_id);

CREATE TABLE budget_crossings (
  budget_id uuid NOT NULL REFERENCES budgets (id),
  subscription_id uuid NOT NULL,
  period_from timestamptz NOT NULL,
  threshold int NOT NULL,
  total numeric NOT NULL,
  crossed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (budget_id, subscription_id, period_from, threshold)
);
