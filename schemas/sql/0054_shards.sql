-- Where tenants live. A shard is a database and a topic; `main` is the platform's own. `database` is the URL of its
-- administrator, encrypted (AES-256-GCM; TIDEMARK_SECRET_KEY).
CREATE TABLE shards (
  id text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  database bytea,
  topic text NOT NULL,
  -- tenants that it is made for; new ones go where there is most room
  capacity int NOT NULL DEFAULT 200 CHECK (capacity > 0),
  -- whether it takes new tenants
  is_open boolean NOT NULL DEFAULT true,
  created_at timestamptz NOT NULL DEFAULT now(),
  CHECK ((database IS NULL) = (id = 'main'))
);
INSERT INTO shards (id, topic) VALUES ('main', 'tidemark.events');
ALTER TABLE tenants ADD COLUMN shard text NOT NULL DEFAULT 'main' REFERENCES shards (id);
