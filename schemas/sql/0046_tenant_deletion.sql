-- A deleted tenant is purged after its grace period. What stays is its customer_id and UUID: late usage is refused rather
-- than given to somebody else, and who comes back under the name gets the same UUID.
ALTER TABLE tenants ADD COLUMN delete_after timestamptz, ADD COLUMN purged_at timestamptz;
