import type { Burn } from '../credits/credits.ts';
import type { Queryable } from '../usage/ports.ts';
import type { Head, RatedLines } from './assemble.ts';
import { canonicalJson, checksumOf } from './canonical.ts';

/** A statement that is ready to be written. */
export interface Finished {
  serial: number;
  head: Head;
  lines: RatedLines;
  checksum: string;
}

export const finish = (serial: number, head: Head, lines: RatedLines): Finished => ({
  serial,
  head,
  lines,
  checksum: checksumOf(canonicalJson(head), lines.texts),
});

const STATEMENTS = `
  INSERT INTO statements (number, subscription_id, tenant_id, period_from, period_to, revision, currency, total, amount_due, line_count,
    head, checksum, closed_at)
  SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::timestamptz[], $6::int[], $7::text[], $8::numeric[],
    $9::numeric[], $10::int[], $11::text[], $12::text[], $13::timestamptz[])`;
const LINES = `
  INSERT INTO statement_lines (number, line, adjusts, content)
  SELECT * FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::text[])`;
const BURNS = `
  INSERT INTO credit_burns (grant_id, number, amount) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::numeric[])`;
/** Rows of one INSERT: bounds the message to the database. */
const CHUNK = 5_000;

/** Writes statements, their lines and the credit they burn, in the caller's transaction. */
export async function writeStatements(database: Queryable, statements: readonly Finished[]): Promise<void> {
  const column = <T>(of: (one: Finished) => T): T[] => statements.map(of);
  await database.query(STATEMENTS, [
    column((one) => one.serial),
    column((one) => one.head.subscription),
    column((one) => one.head.tenant_id),
    column((one) => one.head.period.from),
    column((one) => one.head.period.to),
    column((one) => one.head.revision),
    column((one) => one.head.currency),
    column((one) => one.head.total),
    column((one) => one.head.amount_due),
    column((one) => one.head.line_count),
    column((one) => canonicalJson(one.head)),
    column((one) => one.checksum),
    column((one) => one.head.closed_at),
  ]);
  let rows: [number, number, number | null, string][] = [];
  const flush = async () => {
    if (rows.length > 0) await database.query(LINES, columnsOf(rows));
    rows = [];
  };
  for (const { serial, lines } of statements)
    for (const [i, text] of lines.texts.entries()) {
      rows.push([serial, i + 1, lines.adjusting.get(i + 1) ?? null, text]);
      if (rows.length === CHUNK) await flush();
    }
  await flush();
  const burns = statements.flatMap(({ serial, head }) => head.credits.map((one): [Burn, number] => [one, serial]));
  if (burns.length > 0)
    await database.query(BURNS, [
      burns.map(([one]) => one.grant),
      burns.map(([, serial]) => serial),
      burns.map(([one]) => one.amount),
    ]);
}

function columnsOf(rows: readonly (readonly unknown[])[]): unknown[][] {
  return (rows[0] ?? []).map((_, i) => rows.map((row) => row[i]));
}
