-- Who is metered. `customer_id` is the outside name that events carry; relations elsewhere carry only the UUID.
CREATE TABLE tenants (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  customer_id text NOT NULL UNIQUE,
  slug text UNIQUE,
  name text NOT NULL,
  email text,
  tier text NOT NULL CHECK (tier IN ('free', 'standard', 'enterprise', 'discovered')),
  status text NOT NULL CHECK (status IN ('discovered', 'provisioning', 'ready', 'suspended', 'failed', 'deleted')),
  created_at timestamptz NOT NULL DEFAULT now()
);
