-- Where a correction is: with the event that it replaces. Asked when it is to be corrected itself (SPREAD_TENANTS).
CREATE INDEX withdrawals_by ON withdrawals (by_key);
