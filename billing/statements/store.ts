import type { Queryable } from '../usage/ports.ts';
import type { Head } from './assemble.ts';
import type { StatementLine } from './lines.ts';
import { numberOf } from './numbers.ts';

/** A closed statement without its lines. */
export interface StoredStatement {
  serial: number;
  /** canonical JSON, as it was hashed */
  headText: string;
  head: Head;
  checksum: string;
  void: { reason: string; reissued_as: string | null; voided_at: string } | null;
}

interface Row {
  serial: number;
  head: string;
  checksum: string;
  reason: string | null;
  reissued_as: number | null;
  voided_at: Date | null;
}

const SELECT = `
  SELECT s.number::float8 AS serial, s.head, s.checksum, v.reason, v.reissued_as::float8 AS reissued_as, v.voided_at
  FROM statements AS s LEFT JOIN statement_voids AS v USING (number)`;

function toStored(row: Row): StoredStatement {
  return {
    serial: row.serial,
    headText: row.head,
    head: JSON.parse(row.head),
    checksum: row.checksum,
    void:
      row.reason === null || row.voided_at === null
        ? null
        : {
            reason: row.reason,
            reissued_as: row.reissued_as === null ? null : numberOf(row.reissued_as),
            voided_at: row.voided_at.toISOString(),
          },
  };
}

export async function findStatement(database: Queryable, serial: number): Promise<StoredStatement | undefined> {
  const { rows } = await database.query<Row>(`${SELECT} WHERE s.number = $1`, [serial]);
  return rows[0] === undefined ? undefined : toStored(rows[0]);
}

/** Newest first. @param page.before serial; only older ones */
export async function listStatements(
  database: Queryable,
  page: {
    tenantIds: readonly string[] | null;
    subscription: string | null;
    status: 'closed' | 'void' | null;
    /** Unix ms: only periods that ended in (from, to] */
    endedIn?: { from: number; to: number };
    before: number | null;
    limit: number;
  },
): Promise<StoredStatement[]> {
  const { rows } = await database.query<Row>(
    `${SELECT} WHERE ($1::uuid[] IS NULL OR s.tenant_id = ANY ($1)) AND ($2::uuid IS NULL OR s.subscription_id = $2)
       AND ($3::bigint IS NULL OR s.number < $3) AND ($5::text IS NULL OR (v.number IS NULL) = ($5 = 'closed'))
       AND ($6::timestamptz IS NULL OR s.period_to > $6) AND ($7::timestamptz IS NULL OR s.period_to <= $7)
     ORDER BY s.number DESC LIMIT $4`,
    [
      page.tenantIds,
      page.subscription,
      page.before,
      page.limit,
      page.status,
      page.endedIn === undefined ? null : new Date(page.endedIn.from).toISOString(),
      page.endedIn === undefined ? null : new Date(page.endedIn.to).toISOString(),
    ],
  );
  return rows.map(toStored);
}

const PAGE = 5_000;

/** Canonical JSON of a statement's lines in order, a page at a time. */
export async function* readLines(database: Queryable, serial: number): AsyncGenerator<string> {
  for (let after = 0; ; after += PAGE) {
    const { rows } = await database.query<{ content: string }>(
      'SELECT content FROM statement_lines WHERE number = $1 AND line > $2 AND line <= $3 ORDER BY line',
      [serial, after, after + PAGE],
    );
    for (const row of rows) yield row.content;
    if (rows.length < PAGE) return;
  }
}

/** A line of any statement, for export: `id` never changes, and no line is ever changed. */
export type ExportedLine = StatementLine & {
  id: string;
  line: number;
  statement: string;
  tenant: string;
  subscription: string;
  currency: string;
  void: boolean;
};

const EXPORT = `
  SELECT l.number::float8 AS number, l.line, l.content, s.subscription_id, s.currency, t.customer_id, v.number IS NOT NULL AS void
  FROM statement_lines AS l JOIN statements AS s USING (number) JOIN tenants AS t ON t.id = s.tenant_id
  LEFT JOIN statement_voids AS v USING (number)
  WHERE ($1::uuid[] IS NULL OR s.tenant_id = ANY ($1)) AND (l.number, l.line) > ($2::bigint, $3::int)
  ORDER BY l.number, l.line LIMIT $4`;

/** Lines of closed statements in the order in which they were made: a reader that keeps its cursor sees each once. */
export async function exportLines(
  database: Queryable,
  page: { tenantIds: readonly string[] | null; after: { serial: number; line: number }; limit: number },
): Promise<ExportedLine[]> {
  const { rows } = await database.query<{
    number: number;
    line: number;
    content: string;
    subscription_id: string;
    currency: string;
    customer_id: string;
    void: boolean;
  }>(EXPORT, [page.tenantIds, page.after.serial, page.after.line, page.limit]);
  return rows.map((row) => {
    const content: StatementLine & { line: number } = JSON.parse(row.content);
    return {
      ...content,
      id: `${numberOf(row.number)}/${row.line}`,
      statement: numberOf(row.number),
      tenant: row.customer_id,
      subscription: row.subscription_id,
      currency: row.currency,
      void: row.void,
    };
  });
}
