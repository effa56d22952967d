-- Prisma's versions are times of 14 digits.
ALTER TABLE tenant_migrations ALTER COLUMN version TYPE bigint;
