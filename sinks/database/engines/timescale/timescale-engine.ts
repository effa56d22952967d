import { quoteIdentifier } from '../../connect.ts';
import { type ChunkMaker, chunkName, createDetached, createMissing, iso, KnownChunks, widthWith } from '../chunks.ts';
import type { Chunk, Interval, SqlSession, StorageEngine, TimeTable } from '../port.ts';
import { type Extension, isAtLeast } from './extension.ts';

const LIST = `
  SELECT chunk_name AS name, is_compressed AS compressed,
    (extract(epoch FROM range_start) * 1000)::float8 AS from, (extract(epoch FROM range_end) * 1000)::float8 AS to
  FROM timescaledb_information.chunks
  WHERE hypertable_schema = current_schema() AND hypertable_name = $1 ORDER BY range_start`;
const COMPRESSIBLE = `
  SELECT compression_enabled AS yes FROM timescaledb_information.hypertables
  WHERE hypertable_schema = current_schema() AND hypertable_name = $1`;
const DAY = 86_400_000;
const DETACH_SINCE = [2, 21] as const;

interface ChunkRow {
  name: string;
  compressed: boolean;
  from: number;
  to: number;
}

/**
 * Hypertables of TimescaleDB. Chunks are made ahead of the write and under our own names, so that a batch's transaction
 * never holds the lock of a chunk's creation, and a detached chunk is a table like the native engine's.
 * With an Apache licence chunks come by themselves with the first row, and nothing is compressed.
 */
export class TimescaleEngine implements StorageEngine {
  readonly name = 'timescale';
  readonly extension: Extension;
  readonly #schema: string;
  readonly #community: boolean;
  readonly #known = new KnownChunks();
  readonly #maker: ChunkMaker;

  /** @param chunkMs width of the chunks of events and minutes */
  constructor(extension: Extension, { chunkMs = DAY }: { chunkMs?: number } = {}) {
    this.extension = extension;
    this.#schema = quoteIdentifier(extension.schema);
    this.#community = extension.licence === 'timescale';
    this.#maker = { width: widthWith(chunkMs), intervals: list, create };
  }

  async ensureChunks(client: SqlSession, table: TimeTable, times: Iterable<number>): Promise<void> {
    if (this.#community) await createMissing(client, table, times, this.#known, this.#maker);
  }

  async listChunks(client: SqlSession, table: TimeTable): Promise<Chunk[]> {
    const sizes = await client.query<{ name: string; bytes: number }>(
      `SELECT chunk_name AS name, total_bytes::float8 AS bytes FROM ${this.#schema}.chunks_detailed_size($1::regclass)`,
      [table.table],
    );
    const bytes = new Map(sizes.rows.map((row) => [row.name, row.bytes]));
    const rows = await list(client, table);
    return rows.map((row) => ({ table: table.table, ...row, bytes: bytes.get(row.name) ?? 0 }));
  }

  async detachChunk(client: SqlSession, chunk: Chunk): Promise<void> {
    const name = quoteIdentifier(chunk.name);
    const attached = await this.#attached(client, chunk);
    if (attached?.compressed) await client.query(`CALL ${this.#schema}.convert_to_rowstore('${name}')`);
    if (this.#community && isAtLeast(this.extension.version, DETACH_SINCE))
      await client.query(`CALL ${this.#schema}.detach_chunk('${name}')`);
    else await this.#copyOut(client, chunk);
    this.#known.forget(chunk.table);
  }

  createDetached = createDetached;

  /** The chunk's indexes are made with it. */
  async prepareDetached(): Promise<void> {}

  async attachDetached(client: SqlSession, table: TimeTable, name: string, interval: Interval): Promise<void> {
    const detached = quoteIdentifier(name);
    if (this.#community) {
      const chunk = chunkName(table.table, interval.from);
      await client.query(`ALTER TABLE ${detached} RENAME TO ${quoteIdentifier(chunk)}`);
      await create(client, table, chunk, interval);
    } else {
      await client.query(`INSERT INTO ${quoteIdentifier(table.table)} SELECT * FROM ${detached}`);
      await client.query(`DROP TABLE ${detached}`);
    }
    this.#known.forget(table.table);
  }

  /** Only through `drop_chunks`: the catalogue and what is compressed go with it. */
  async dropChunk(client: SqlSession, chunk: Chunk): Promise<void> {
    const attached = await this.#attached(client, chunk);
    if (attached === undefined) await client.query(`DROP TABLE IF EXISTS ${quoteIdentifier(chunk.name)}`);
    else
      await client.query(
        `SELECT ${this.#schema}.drop_chunks($1::regclass, older_than => $2::timestamptz, newer_than => $3::timestamptz)`,
        [chunk.table, iso(attached.to), iso(attached.from)],
      );
    this.#known.forget(chunk.table);
  }

  async compressChunk(client: SqlSession, chunk: Chunk): Promise<boolean> {
    if (!this.#community) return false;
    const { rows } = await client.query<{ yes: boolean }>(COMPRESSIBLE, [chunk.table]);
    if (rows[0]?.yes !== true) return false;
    await client.query(`CALL ${this.#schema}.convert_to_columnstore('${quoteIdentifier(chunk.name)}')`);
    return true;
  }

  forget(): void {
    this.#known.forget();
  }

  async #attached(client: SqlSession, chunk: Chunk): Promise<ChunkRow | undefined> {
    const rows = await list(client, { table: chunk.table });
    return rows.find((row) => row.name === chunk.name);
  }

  /** Before 2.21, and without community features, a chunk can't be detached: its rows move, in one statement. */
  async #copyOut(client: SqlSession, chunk: Chunk): Promise<void> {
    const name = quoteIdentifier(chunk.name);
    const copy = quoteIdentifier(`${chunk.name}_detached`);
    await client.query(
      `DO $move$ BEGIN
         CREATE TABLE ${copy} (LIKE ${name} INCLUDING ALL);
         LOCK TABLE ${name} IN ACCESS EXCLUSIVE MODE;
         INSERT INTO ${copy} SELECT * FROM ${name};
         DROP TABLE ${name};
         ALTER TABLE ${copy} RENAME TO ${name};
       END $move$`,
    );
  }
}

async function list(client: SqlSession, table: Pick<TimeTable, 'table'>): Promise<ChunkRow[]> {
  const { rows } = await client.query<ChunkRow>(LIST, [table.table]);
  return rows;
}

/** A table of that name is a chunk that was detached: it comes back. */
async function create(client: SqlSession, table: TimeTable, name: string, { from, to }: Interval): Promise<void> {
  await client.query(
    `SELECT _timescaledb_functions.create_chunk($1::regclass, jsonb_build_object($2::text, jsonb_build_array($3::bigint, $4::bigint)),
       current_schema(), $5::name, to_regclass(quote_ident($5)))`,
    [table.table, table.column, from * 1000, to * 1000, name],
  );
}
