-- Closed statements: numbered without gaps, never changed. `head` is the statement in canonical JSON (RFC 8785) without
-- its lines, which stand one a row; `checksum` is SHA-256 over the canonical JSON of both together.
CREATE TABLE statement_series (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  last bigint NOT NULL
);
INSERT INTO statement_series (last) VALUES (0);

CREATE TABLE statements (
  number bigint PRIMARY KEY,
  subscription_id uuid NOT NULL REFERENCES subscriptions (id),
  tenant_id uuid NOT NULL,
  period_from timestamptz NOT NULL,
  period_to timestamptz NOT NULL,
  -- 0: the first of its period; a reissue counts on
  revision int NOT NULL,
  currency text NOT NULL,
  total numeric NOT NULL,
  amount_due numeric NOT NULL,
  line_count int NOT NULL,
  head text NOT NULL,
  checksum text NOT NULL,
  closed_at timestamptz NOT NULL,
  -- a period is closed once, whatever crashes
  UNIQUE (subscription_id, period_from, revision)
);
CREATE INDEX statements_of_tenant ON statements (tenant_id, number);

CREATE TABLE statement_lines (
  number bigint NOT NULL REFERENCES statements (number),
  line int NOT NULL,
  -- of an adjustment: the statement that it adjusts
  adjusts bigint,
  content text NOT NULL,
  PRIMARY KEY (number, line)
);
CREATE INDEX statement_lines_adjusting ON statement_lines (adjusts) WHERE adjusts IS NOT NULL;

CREATE TABLE statement_voids (
  number bigint PRIMARY KEY REFERENCES statements (number),
  reason text NOT NULL,
  reissued_as bigint REFERENCES statements (number),
  -- last number given when it happened: later statements know of it
  after_number bigint NOT NULL,
  voided_at timestamptz NOT NULL
);

CREATE TRIGGER statements_never_change BEFORE UPDATE OR DELETE OR TRUNCATE ON statements
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER statement_lines_never_change BEFORE UPDATE OR DELETE OR TRUNCATE ON statement_lines
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER statement_voids_never_change BEFORE UPDATE OR DELETE OR TRUNCATE ON statement_voids
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
