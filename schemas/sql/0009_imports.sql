-- How far a file import has come, so that it resumes; sending a part twice is harmless (idempotency keys are per line).
CREATE TABLE imports (
  id uuid PRIMARY KEY,
  name text NOT NULL,
  lines bigint NOT NULL DEFAULT 0,
  finished_at timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now()
);
