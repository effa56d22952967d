-- A version of a plan never changes; a change of prices is the next version.
CREATE TABLE plans (
  key text NOT NULL,
  version int NOT NULL CHECK (version > 0),
  name text NOT NULL,
  currency text NOT NULL,
  interval text NOT NULL CHECK (interval IN ('month', 'quarter', 'year')),
  charges jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (key, version)
);
CREATE TRIGGER plans_never_change BEFORE UPDATE OR DELETE OR TRUNCATE ON plans
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
