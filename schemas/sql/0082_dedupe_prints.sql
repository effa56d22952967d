-- A sealed run keeps what the index in memory needs of its keys (4 bytes a key); only a merged run has a filter.
-- Without either, a processor of an earlier release fails instead of taking a run for empty.
ALTER TABLE dedupe_runs ADD COLUMN prints bytea;
ALTER TABLE dedupe_runs ALTER COLUMN prints SET STORAGE EXTERNAL;
ALTER TABLE dedupe_runs ALTER COLUMN filter DROP NOT NULL;

-- Whoever chooses keys whose hashes crowd into one page makes it larger than a row may be: then, and only then, it is
-- stored out of line.
ALTER TABLE dedupe_pages ALTER COLUMN keys SET STORAGE EXTERNAL;
ALTER TABLE dedupe_pages SET (toast_tuple_target = 8160);
