-- Raised by whoever takes away what an owner of a partition may hold in memory (a tenant's identity, its rollups): the
-- owner's next commit fails, and it starts over from the database.
ALTER TABLE log_offsets ADD COLUMN generation bigint NOT NULL DEFAULT 0;
