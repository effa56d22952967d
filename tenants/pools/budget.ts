import type { Pool } from 'pg';

/** Sessions of people and tools, so that somebody can look when the server is full. */
const FOR_PEOPLE = 5;

/**
 * How many connections the tenants' pools may open: what the settings allow, and no more than the server has.
 * @param connections that the settings count on @param administration of them kept for people and for us
 * @param own most connections of this process beside these pools: a full server must not refuse them
 * @returns at least 1
 */
export async function fitBudget(
  pool: Pool,
  { connections, administration, own }: { connections: number; administration: number; own: number },
): Promise<number> {
  const { rows } = await pool.query<{ most: number }>(
    `SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END)::int AS most FROM pg_settings
     WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')`,
  );
  const most = (rows[0]?.most ?? connections) - Math.max(administration, own + FOR_PEOPLE);
  return Math.max(1, Math.min(connections - administration, most));
}
