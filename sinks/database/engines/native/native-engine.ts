import type { ClientBase } from 'pg';
import { quoteIdentifier } from '../../connect.ts';
import type { Chunk, StorageEngine, TimeTable } from '../port.ts';

const LIST = `
  SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bound, pg_total_relation_size(c.oid)::float8 AS bytes
  FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
  WHERE i.inhparent = to_regclass($1) ORDER BY 1`;
const BOUND = /FROM \('([^']+)'\) TO \('([^']+)'\)/;
/** Room for HOT updates: rollup rows are rewritten while their window is open. */
const FILLFACTOR: Record<string, number> = { rollups_minute: 70, rollups_hour: 70 };
/** One chunk is created at a time in a database. A row: any role that can connect could hold an advisory lock. */
const CREATE_LOCK = `SELECT FROM tidemark.control_locks WHERE name = 'chunks' FOR UPDATE`;

/** Declarative range partitions: for every PostgreSQL, with no extension. */
export class NativeEngine implements StorageEngine {
  readonly name = 'native';
  /** names of chunks that exist, as far as this process knows */
  readonly #known = new Set<string>();

  async ensureChunks(client: ClientBase, table: TimeTable, times: Iterable<number>): Promise<void> {
    let last = '';
    for (const time of times) {
      const from = Math.floor(time / table.chunkMs) * table.chunkMs;
      const name = chunkName(table, from);
      if (name === last || this.#known.has(name)) continue;
      last = name;
      await this.#create(client, table, name, from);
      this.#known.add(name);
    }
  }

  /**
   * Made aside and attached: attaching locks the parent far less than CREATE … PARTITION OF (manual, 5.12.2.2). One
   * process at a time: CREATE TABLE IF NOT EXISTS alone is not safe against another one's (unique violations in the catalogue).
   */
  async #create(client: ClientBase, table: TimeTable, name: string, from: number): Promise<void> {
    const parent = quoteIdentifier(table.table);
    const chunk = quoteIdentifier(name);
    const fillfactor = FILLFACTOR[table.table];
    const storage = fillfactor === undefined ? '' : ` WITH (fillfactor = ${fillfactor})`;
    await client.query('BEGIN');
    try {
      await client.query(CREATE_LOCK);
      const attached = await client.query(
        'SELECT 1 FROM pg_inherits WHERE inhparent = to_regclass($1) AND inhrelid = to_regclass($2)',
        [parent, chunk],
      );
      if (attached.rowCount === 0) {
        await client.query(
          `CREATE TABLE IF NOT EXISTS ${chunk} (LIKE ${parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)${storage}`,
        );
        await client.query(
          `ALTER TABLE ${parent} ATTACH PARTITION ${chunk} FOR VALUES FROM ('${iso(from)}') TO ('${iso(from + table.chunkMs)}')`,
        );
      }
      await client.query('COMMIT');
    } catch (error) {
      await client.query('ROLLBACK');
      throw error;
    }
  }

  async listChunks(client: ClientBase, table: TimeTable): Promise<Chunk[]> {
    const { rows } = await client.query<{ name: string; bound: string; bytes: number }>(LIST, [table.table]);
    return rows.flatMap(({ name, bound, bytes }) => {
      const [, from, to] = BOUND.exec(bound) ?? [];
      if (from === undefined || to === undefined) return [];
      return [
        {
          table: table.table,
          name,
          from: Date.parse(`${from}Z`.replace('+00Z', 'Z')),
          to: Date.parse(`${to}Z`.replace('+00Z', 'Z')),
          bytes,
          compressed: false,
        },
      ];
    });
  }

  async detachChunk(client: ClientBase, chunk: Chunk): Promise<void> {
    await client.query(`ALTER TABLE ${quoteIdentifier(chunk.table)} DETACH PARTITION ${quoteIdentifier(chunk.name)}`);
    this.#known.delete(chunk.name);
  }

  async dropChunk(client: ClientBase, chunk: Chunk): Promise<void> {
    await client.query(`DROP TABLE IF EXISTS ${quoteIdentifier(chunk.name)}`);
    this.#known.delete(chunk.name);
  }

  async compressChunk(): Promise<boolean> {
    return false;
  }

  /** Forgets which chunks exist: another process may have dropped one. */
  forget(): void {
    this.#known.clear();
  }
}

const iso = (ms: number): string => new Date(ms).toISOString();

/** `events_20261124`: the table and its first day. */
function chunkName(table: TimeTable, from: number): string {
  return `${table.table}_${iso(from).slice(0, 10).replaceAll('-', '')}`;
}
