-- A day that was brought back: its rows stand in the database until then, and readers find them there; the files stay as
-- they are. `recall_rows` and `recall_check` (sum of hashes of rows) tell whether anything was changed meanwhile.
ALTER TABLE archive_days
  ADD COLUMN recalled_until timestamptz,
  ADD COLUMN recall_rows bigint,
  ADD COLUMN recall_check numeric,
  ADD CHECK ((recalled_until IS NULL) = (recall_check IS NULL)),
  ADD CHECK ((recalled_until IS NULL) = (recall_rows IS NULL)),
  ADD CHECK (recalled_until IS NULL OR manifest IS NOT NULL);
