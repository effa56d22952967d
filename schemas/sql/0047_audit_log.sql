-- Who of the platform's side looked at or changed which tenant, why and when. Rows are added and never changed: not even
-- the owner of the table can by mistake (a superuser could take the triggers away, and that is logged by PostgreSQL).
CREATE TABLE audit_log (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  key_id text NOT NULL,
  action text NOT NULL,
  -- references as they were given; empty: all tenants
  tenants text[] NOT NULL,
  reason text,
  request_id text NOT NULL
);
CREATE INDEX audit_log_at ON audit_log USING brin (at);

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'rows of % are never changed', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
