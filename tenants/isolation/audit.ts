import type { Pool } from 'pg';

/** One look or change of the platform's side at tenants. */
export interface AuditEntry {
  keyId: string;
  /** method and route */
  action: string;
  /** references as they were given; empty: all tenants */
  tenants: readonly string[];
  reason: string | null;
  requestId: string;
}

export interface AuditTrail {
  /** Resolves once the entry is durable; entries of the same moment are one transaction. @throws Error of the database */
  record(entry: AuditEntry): Promise<void>;
}

const ADD = `
  INSERT INTO audit_log (key_id, action, tenants, reason, request_id)
  SELECT e ->> 'keyId', e ->> 'action', ARRAY(SELECT jsonb_array_elements_text(e -> 'tenants')), e ->> 'reason', e ->> 'requestId'
  FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS given(e, n) ORDER BY n`;
/** Entries in one statement. */
const MOST = 500;

export function openAuditTrail(pool: Pool): AuditTrail {
  let waiting: { entry: AuditEntry; resolve(): void; reject(error: unknown): void }[] = [];
  let writing = false;

  const write = async () => {
    writing = true;
    while (waiting.length > 0) {
      const batch = waiting.slice(0, MOST);
      waiting = waiting.slice(MOST);
      try {
        await pool.query({ name: 'audit_add', text: ADD, values: [JSON.stringify(batch.map((one) => one.entry))] });
        for (const one of batch) one.resolve();
      } catch (error) {
        for (const one of batch) one.reject(error);
      }
    }
    writing = false;
  };

  return {
    record: (entry) =>
      new Promise((resolve, reject) => {
        waiting.push({ entry, resolve, reject });
        if (!writing) void write();
      }),
  };
}

export interface AuditRow extends AuditEntry {
  id: number;
  at: Date;
}

/** Newest first, before row `before`. */
export async function listAudit(
  pool: Pool,
  { tenant, before, limit }: { tenant: string | null; before: number | null; limit: number },
): Promise<AuditRow[]> {
  const { rows } = await pool.query<AuditRow>(
    `SELECT id::float8 AS id, at, key_id AS "keyId", action, tenants, reason, request_id AS "requestId" FROM audit_log
     WHERE ($1::text IS NULL OR $1 = ANY (tenants)) AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3`,
    [tenant, before, limit],
  );
  return rows;
}
