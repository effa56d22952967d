import { quoteIdentifier } from '../../connect.ts';
import { type ChunkMaker, chunkName, createDetached, createMissing, iso, KnownChunks, widthWith } from '../chunks.ts';
import type { Chunk, Interval, SqlSession, StorageEngine, TimeTable } from '../port.ts';

const LIST = (size: string) => `
  SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bound, ${size} AS bytes
  FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
  WHERE i.inhparent = to_regclass($1) AND NOT i.inhdetachpending`;
const WITH_SIZE = LIST('pg_total_relation_size(c.oid)::float8');
const BOUNDS = LIST('0::float8');
const BOUND = /FROM \('([^']+)'\) TO \('([^']+)'\)/;
const IS_ATTACHED = 'SELECT 1 FROM pg_inherits WHERE inhparent = to_regclass($1) AND inhrelid = to_regclass($2)';
const INDEXES = `
  SELECT pg_get_indexdef(i.indexrelid) AS definition FROM pg_index AS i
  WHERE i.indrelid = to_regclass($1) AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)`;
/** Saves the scan that ATTACH would make (manual, 5.12.2.2). */
const BOUNDS_CHECK = 'within_chunk';
/** Room for HOT updates: rollup rows are rewritten while their window is open. */
const FILLFACTOR: Record<string, number> = { rollups_minute: 70, rollups_hour: 70 };
const DAY = 86_400_000;

/** Declarative range partitions: for every PostgreSQL, with no extension. */
export class NativeEngine implements StorageEngine {
  readonly name = 'native';
  readonly #known = new KnownChunks();
  readonly #maker: ChunkMaker;

  /** @param chunkMs width of the chunks of events and minutes */
  constructor({ chunkMs = DAY }: { chunkMs?: number } = {}) {
    this.#maker = { width: widthWith(chunkMs), intervals: list(BOUNDS), create };
  }

  async ensureChunks(client: SqlSession, table: TimeTable, times: Iterable<number>): Promise<void> {
    await createMissing(client, table, times, this.#known, this.#maker);
  }

  async listChunks(client: SqlSession, table: TimeTable): Promise<Chunk[]> {
    const chunks = await list(WITH_SIZE)(client, table);
    return chunks.map((chunk) => ({ table: table.table, ...chunk, compressed: false }));
  }

  async detachChunk(client: SqlSession, chunk: Chunk): Promise<void> {
    await client.query(`ALTER TABLE ${quoteIdentifier(chunk.table)} DETACH PARTITION ${quoteIdentifier(chunk.name)}`);
    this.#known.forget(chunk.table);
  }

  createDetached = createDetached;

  async prepareDetached(client: SqlSession, table: TimeTable, name: string, { from, to }: Interval): Promise<void> {
    const detached = quoteIdentifier(name);
    const { rows } = await client.query<{ definition: string }>(INDEXES, [quoteIdentifier(table.table)]);
    for (const { definition } of rows)
      await client.query(definition.replace(/ INDEX \S+ ON (ONLY )?\S+ /, () => ` INDEX ON ${detached} `));
    const column = quoteIdentifier(table.column);
    await client.query(
      `ALTER TABLE ${detached} ADD CONSTRAINT ${BOUNDS_CHECK} CHECK (${column} >= '${iso(from)}' AND ${column} < '${iso(to)}')`,
    );
  }

  async attachDetached(client: SqlSession, table: TimeTable, name: string, interval: Interval): Promise<void> {
    const chunk = chunkName(table.table, interval.from);
    await client.query(`ALTER TABLE ${quoteIdentifier(name)} RENAME TO ${quoteIdentifier(chunk)}`);
    await create(client, table, chunk, interval);
    await client.query(`ALTER TABLE ${quoteIdentifier(chunk)} DROP CONSTRAINT IF EXISTS ${BOUNDS_CHECK}`);
    this.#known.forget(table.table);
  }

  async dropChunk(client: SqlSession, chunk: Chunk): Promise<void> {
    await client.query(`DROP TABLE IF EXISTS ${quoteIdentifier(chunk.name)}`);
    this.#known.forget(chunk.table);
  }

  async compressChunk(): Promise<boolean> {
    return false;
  }

  forget(): void {
    this.#known.forget();
  }
}

/** Made aside and attached: attaching locks the parent far less than CREATE … PARTITION OF (manual, 5.12.2.2). */
async function create(client: SqlSession, table: TimeTable, name: string, { from, to }: Interval): Promise<void> {
  const parent = quoteIdentifier(table.table);
  const chunk = quoteIdentifier(name);
  const { rows } = await client.query(IS_ATTACHED, [parent, chunk]);
  if (rows.length > 0) return;
  const fillfactor = FILLFACTOR[table.table];
  const storage = fillfactor === undefined ? '' : ` WITH (fillfactor = ${fillfactor})`;
  await client.query(
    `CREATE TABLE IF NOT EXISTS ${chunk} (LIKE ${parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)${storage}`,
  );
  await client.query(
    `ALTER TABLE ${parent} ATTACH PARTITION ${chunk} FOR VALUES FROM ('${iso(from)}') TO ('${iso(to)}')`,
  );
}

const list =
  (sql: string) =>
  async (
    client: SqlSession,
    table: TimeTable,
  ): Promise<{ name: string; from: number; to: number; bytes: number }[]> => {
    const { rows } = await client.query<{ name: string; bound: string; bytes: number }>(sql, [table.table]);
    return rows
      .flatMap(({ name, bound, bytes }) => {
        const [, from, to] = BOUND.exec(bound) ?? [];
        return from === undefined || to === undefined ? [] : [{ name, from: utc(from), to: utc(to), bytes }];
      })
      .sort((a, b) => a.from - b.from);
  };

/** `2026-11-24 00:00:00+00`, as our connections see a bound. */
const utc = (text: string): number => Date.parse(text.replace(/\+00$/, 'Z'));
