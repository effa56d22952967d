import type { Pool } from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import { periodFrom } from '../subscriptions/periods.ts';
import { loadSubscriptions, rulesOf } from '../subscriptions/subscriptions.ts';
import type { FindMeter, ReadRawEvents } from '../usage/ports.ts';
import { readRaw } from '../usage/raw-usage.ts';
import type { Need } from '../usage/usage.ts';
import { assembleLines, headOf, RatedLines } from './assemble.ts';
import { canonicalJson, checksumOf } from './canonical.ts';
import { billedPeriod } from './lines.ts';
import { numberOf } from './numbers.ts';
import { findStatement, readLines } from './store.ts';

export interface Replay {
  number: string;
  identical: boolean;
  /** SHA-256 of the statement as it was closed, hex */
  checksum: string;
  /** of what raw events give now */
  recomputed: string;
  lines: number;
  /** the first places that differ */
  differences: { line: number | null; closed: string | null; recomputed: string | null }[];
}

const MOST_SHOWN = 10;

/**
 * Recomputes a statement from raw events before its positions, and compares byte for byte. What does not come from
 * events is taken as it was: number, time, terms in force, the credit it burnt, what earlier statements had billed.
 * @throws TidemarkError `not_found` | `unknown_meter`
 */
export async function replayStatement(
  deps: { pool: Pool; findMeter: FindMeter; readRawEvents: ReadRawEvents },
  serial: number,
): Promise<Replay> {
  const statement = await findStatement(deps.pool, serial);
  if (statement === undefined) throw new TidemarkError('not_found', `there is no statement ${numberOf(serial)}`);
  const { head, headText } = statement;
  const [subscription] = await loadSubscriptions(deps.pool, { ids: [head.subscription] });
  const period = subscription && periodFrom(rulesOf(subscription), Date.parse(head.period.from));
  if (subscription === undefined || period === undefined) throw new Error(`the subscription of ${head.number} is gone`);
  const billed = billedPeriod({ ...subscription, customerId: head.tenant }, period);
  const source = (needs: readonly Need[]) => readRaw(deps, needs, head.positions);
  const options = { before: serial, since: Date.parse(head.adjusted_since) };
  const lines = (await assembleLines(deps.pool, source, [billed], options)).get(billed) ?? new RatedLines();
  const { number, revision, replaces, reason, positions, adjusted_since, closed_at } = head;
  const again = headOf(
    billed,
    lines,
    { number, revision, replaces, reason, positions, adjusted_since, closed_at },
    () => head.credits,
  );
  const { texts } = lines;
  const recomputed = checksumOf(canonicalJson(again), texts);
  const differences: Replay['differences'] = [];
  if (canonicalJson(again) !== headText)
    differences.push({ line: null, closed: headText, recomputed: canonicalJson(again) });
  const closedTexts: string[] = [];
  let line = 0;
  for await (const closed of readLines(deps.pool, serial)) {
    if (closed !== texts[line] && differences.length < MOST_SHOWN)
      differences.push({ line: line + 1, closed, recomputed: texts[line] ?? null });
    closedTexts.push(closed);
    line++;
  }
  for (; line < texts.length && differences.length < MOST_SHOWN; line++)
    differences.push({ line: line + 1, closed: null, recomputed: texts[line] ?? null });
  const stored = checksumOf(headText, closedTexts);
  return {
    number: numberOf(serial),
    identical: differences.length === 0 && recomputed === statement.checksum && stored === statement.checksum,
    checksum: statement.checksum,
    recomputed,
    lines: texts.length,
    differences,
  };
}
