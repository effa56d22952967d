import type { ClientBase, Pool } from 'pg';
import type { Day } from '../layout.ts';
import { type LogPosition, parseManifest, type SignedManifest } from '../manifest.ts';

export type DayState = 'new' | 'written' | 'verified' | 'detached' | 'archived';

/** A manifest as the store has it. */
export interface StoredManifest extends SignedManifest {
  etag: string;
}

/** A day that is back in the database. */
export interface Recall {
  /** Unix ms */
  until: number;
  /** what came back, as `recallCheck` counts it */
  rows: number;
  check: string;
}

/** What the database knows of a day's archive. */
export interface DayRow {
  day: Day;
  state: DayState;
  /** what readers see */
  current: StoredManifest | undefined;
  /** written, but its rows have not left the database yet */
  pending: StoredManifest | undefined;
  /** set while its rows are back in the database: readers find them there */
  recalled: Recall | undefined;
  /** detached, still to be dropped */
  chunks: string[];
  epoch: number;
}

/** Another archiver took the day over: nothing was changed, nothing may be. */
export class LeaseLost extends Error {
  override name = 'LeaseLost';
}

interface Row {
  day: Day;
  state: DayState;
  manifest: string | null;
  manifest_etag: string | null;
  pending: string | null;
  pending_etag: string | null;
  recalled_until: number | null;
  recall_rows: number;
  recall_check: string;
  chunks: string[];
  epoch: string;
}

const COLUMNS = `day::text AS day, state, manifest, manifest_etag, pending, pending_etag, chunks, epoch,
  (extract(epoch FROM recalled_until) * 1000)::float8 AS recalled_until, recall_rows::float8 AS recall_rows, recall_check::text AS recall_check`;

function toRow(row: Row): DayRow {
  const stored = (text: string | null, etag: string | null): StoredManifest | undefined =>
    text === null ? undefined : { ...parseManifest(text, row.day), etag: etag ?? '' };
  return {
    day: row.day,
    state: row.state,
    current: stored(row.manifest, row.manifest_etag),
    pending: stored(row.pending, row.pending_etag),
    recalled:
      row.recalled_until === null
        ? undefined
        : { until: row.recalled_until, rows: row.recall_rows, check: row.recall_check },
    chunks: row.chunks,
    epoch: Number(row.epoch),
  };
}

/** Takes the lease of a day, by the database's clock; the row is made when missing. @returns undefined while another has it */
export async function claimDay(pool: Pool, day: Day, leaseMs: number): Promise<DayRow | undefined> {
  await pool.query('INSERT INTO archive_days (day) VALUES ($1) ON CONFLICT DO NOTHING', [day]);
  const { rows } = await pool.query<Row>(
    `UPDATE archive_days SET epoch = epoch + 1, lease_until = clock_timestamp() + $2 * interval '1 ms'
     WHERE day = $1 AND lease_until < clock_timestamp() RETURNING ${COLUMNS}`,
    [day, leaseMs],
  );
  return rows[0] === undefined ? undefined : toRow(rows[0]);
}

/** Says that the work goes on. @throws {LeaseLost} */
export async function renewDay(pool: Pool, { day, epoch }: DayRow, leaseMs: number): Promise<void> {
  const { rowCount } = await pool.query(
    `UPDATE archive_days SET lease_until = clock_timestamp() + $3 * interval '1 ms' WHERE day = $1 AND epoch = $2`,
    [day, epoch, leaseMs],
  );
  if (rowCount === 0) throw new LeaseLost(`another archiver has ${day}`);
}

/** Lets the day go; what went wrong is kept for `archive list`. */
export async function releaseDay(pool: Pool, { day, epoch }: DayRow, error: string | null): Promise<void> {
  await pool.query(
    `UPDATE archive_days SET lease_until = '-infinity', error = $3, updated_at = now() WHERE day = $1 AND epoch = $2`,
    [day, epoch, error],
  );
}

/** @throws {LeaseLost} */
async function change(
  client: ClientBase | Pool,
  { day, epoch }: DayRow,
  set: string,
  values: readonly unknown[],
): Promise<void> {
  const { rowCount } = await client.query(
    `UPDATE archive_days SET ${set}, updated_at = now() WHERE day = $1 AND epoch = $2`,
    [day, epoch, ...values],
  );
  if (rowCount === 0) throw new LeaseLost(`another archiver has ${day}`);
}

export async function setPending(pool: Pool, row: DayRow, pending: StoredManifest): Promise<DayRow> {
  await change(pool, row, `state = 'written', pending = $3, pending_sha256 = $4, pending_etag = $5`, [
    pending.text,
    pending.sha256,
    pending.etag,
  ]);
  return { ...row, state: 'written', pending };
}

export async function setVerified(pool: Pool, row: DayRow): Promise<DayRow> {
  await change(pool, row, `state = 'verified', verified_at = now()`, []);
  return { ...row, state: 'verified' };
}

/** Readers see the pending manifest, where there is one, from this commit on; `chunks` are no longer the table's. */
export async function setDetached(client: ClientBase, row: DayRow, chunks: readonly string[]): Promise<void> {
  await change(
    client,
    row,
    `state = 'detached', manifest = coalesce(pending, manifest), manifest_sha256 = coalesce(pending_sha256, manifest_sha256),
     manifest_etag = coalesce(pending_etag, manifest_etag), pending = NULL, pending_sha256 = NULL, pending_etag = NULL,
     recalled_until = NULL, recall_rows = NULL, recall_check = NULL, chunks = chunks || $3::text[],
     archived_at = CASE WHEN pending IS NULL THEN archived_at ELSE now() END`,
    [chunks],
  );
  await setPositions(client, row.day, (row.pending ?? row.current)?.manifest.positions ?? []);
}

/** Readers see the day in the database from this commit on, all that stands there of it. */
export async function setRecalled(client: ClientBase, row: DayRow, { until, rows, check }: Recall): Promise<void> {
  await change(client, row, 'recalled_until = $3, recall_rows = $4, recall_check = $5', [new Date(until), rows, check]);
  await setPositions(client, row.day, []);
}

/** A day that is back stays until then. */
export async function setStay(pool: Pool, row: DayRow, until: number): Promise<void> {
  await change(pool, row, 'recalled_until = $3', [new Date(until)]);
}

async function setPositions(client: ClientBase, day: Day, positions: readonly LogPosition[]): Promise<void> {
  await client.query('DELETE FROM archive_positions WHERE day = $1', [day]);
  await client.query(
    'INSERT INTO archive_positions (day, shard, next) SELECT $1::date, p.shard, p.next FROM unnest($2::int[], $3::bigint[]) AS p(shard, next)',
    [day, positions.map((one) => one.shard), positions.map((one) => one.next)],
  );
}

export async function setArchived(pool: Pool, row: DayRow): Promise<void> {
  await change(pool, row, `state = 'archived', chunks = '{}'`, []);
}

/** Replaces what readers see (erasure, a lost manifest): nothing of it is in the database. */
export async function setCurrent(pool: Pool, row: DayRow, current: StoredManifest): Promise<DayRow> {
  await change(pool, row, 'manifest = $3, manifest_sha256 = $4, manifest_etag = $5, verified_at = now()', [
    current.text,
    current.sha256,
    current.etag,
  ]);
  return { ...row, current };
}

/** Forgets a day whose archive has gone or that never had one. */
export async function forgetDay(pool: Pool, { day, epoch }: DayRow): Promise<void> {
  await pool.query('DELETE FROM archive_days WHERE day = $1 AND epoch = $2', [day, epoch]);
}

async function select(client: ClientBase | Pool, where: string, values: readonly unknown[]): Promise<DayRow[]> {
  const { rows } = await client.query<Row>(`SELECT ${COLUMNS} FROM archive_days WHERE ${where}`, [...values]);
  return rows.map(toRow);
}

/** Days from `from` to `to`, both included, whatever their state. */
export const rowsOf = (client: ClientBase | Pool, from: Day, to: Day): Promise<DayRow[]> =>
  select(client, 'day BETWEEN $1 AND $2 ORDER BY day', [from, to]);

/** Days that have files in the archive, newest first, wherever readers find them. */
export const daysWithFiles = (client: ClientBase | Pool, from: Day, to: Day): Promise<DayRow[]> =>
  select(client, 'day BETWEEN $1 AND $2 AND manifest IS NOT NULL ORDER BY day DESC', [from, to]);

/** Days that readers find in the archive, newest first: not those that are back in the database. */
export const archivedDays = (client: ClientBase | Pool, from: Day, to: Day): Promise<DayRow[]> =>
  select(client, 'day BETWEEN $1 AND $2 AND manifest IS NOT NULL AND recalled_until IS NULL ORDER BY day DESC', [
    from,
    to,
  ]);

/** These days, newest first, as their files are. */
export const filesOfDays = (client: ClientBase | Pool, days: readonly Day[]): Promise<DayRow[]> =>
  select(client, 'day = ANY ($1::date[]) AND manifest IS NOT NULL ORDER BY day DESC', [days]);
