-- What runs by schedule or by request. A run belongs to the process whose lease has not ended; the lease is a row, so a
-- killed process loses it by itself and the run is taken up by another. The database's clock alone decides.
CREATE TABLE job_runs (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  job text NOT NULL,
  params jsonb NOT NULL DEFAULT '{}',
  -- the minute that the schedule named; NULL for a request
  scheduled_for timestamptz,
  status text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'succeeded', 'failed')),
  attempt int NOT NULL DEFAULT 0,
  not_before timestamptz NOT NULL DEFAULT now(),
  lease_owner uuid,
  lease_until timestamptz,
  progress jsonb,
  result jsonb,
  error text,
  created_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  started_at timestamptz,
  ended_at timestamptz,
  CHECK ((status = 'running') = (lease_owner IS NOT NULL AND lease_until IS NOT NULL)),
  CHECK ((status IN ('succeeded', 'failed')) = (ended_at IS NOT NULL))
);
-- The same request twice is the same run; a job runs once at a time; a scheduled minute runs once.
CREATE UNIQUE INDEX job_runs_open ON job_runs (job, md5(params::text)) WHERE status IN ('queued', 'running');
CREATE UNIQUE INDEX job_runs_running ON job_runs (job) WHERE status = 'running';
CREATE UNIQUE INDEX job_runs_scheduled ON job_runs (job, scheduled_for);
CREATE INDEX job_runs_created ON job_runs (created_at, id);
