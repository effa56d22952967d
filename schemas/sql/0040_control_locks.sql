-- Rows as mutexes: `SELECT … FOR UPDATE` holds one until the transaction ends. Advisory locks would be open to every
-- role that can connect, tenants' too.
CREATE TABLE control_locks (
  name text PRIMARY KEY
);
INSERT INTO control_locks (name) VALUES ('migrate'), ('prepare_database'), ('chunks');
