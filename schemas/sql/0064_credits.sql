-- Prepaid credit, and what statements have burnt of it (negative: given back by a void). Neither is ever changed.
CREATE TABLE credit_grants (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants (id),
  currency text NOT NULL,
  amount numeric NOT NULL CHECK (amount > 0),
  note text,
  granted_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz
);
CREATE INDEX credit_grants_of_tenant ON credit_grants (tenant_id, currency);

CREATE TABLE credit_burns (
  grant_id bigint NOT NULL REFERENCES credit_grants (id),
  number bigint NOT NULL REFERENCES statements (number),
  amount numeric NOT NULL,
  is_return boolean NOT NULL DEFAULT false,
  PRIMARY KEY (grant_id, number, is_return)
);
CREATE INDEX credit_burns_of_statement ON credit_burns (number);

CREATE TRIGGER credit_grants_never_change BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_grants
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER credit_burns_never_change BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_burns
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
