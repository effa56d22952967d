import type { Pool } from 'pg';

/**
 * How many connections the tenants' pools may open: what the settings allow, and no more than the server has.
 * @param connections of all pools together @param administration of them kept for us and for people
 * @returns at least 1
 */
export async function fitBudget(
  pool: Pool,
  { connections, administration }: { connections: number; administration: number },
): Promise<number> {
  const { rows } = await pool.query<{ most: number }>(
    `SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END)::int AS most FROM pg_settings
     WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')`,
  );
  return Math.max(1, Math.min(connections, rows[0]?.most ?? connections) - administration);
}
