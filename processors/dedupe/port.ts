import type { ClientBase, Pool } from 'pg';

/** A key is 16 bytes: SHA-256(tenant, 0x00, key) cut to 128 bits; keys are handed over packed, one after another. */
export const KEY_BYTES = 16;

/** The claimed keys of one shard, as its only owner sees them. */
export interface ClaimStore {
  /**
   * Which of `count` packed keys are new? The first occurrence in the batch wins.
   * Reads only: `add` makes them known in memory, `persist` in the database.
   * @returns 1 for a new key, 0 for a duplicate, in the order of the keys
   */
  claim(database: Pool | ClientBase, keys: Buffer, count: number): Promise<Uint8Array>;
  /** Makes keys known to the next `claim`. If their batch is not committed, this store must be opened anew. */
  add(keys: Buffer, count: number): void;
  /** Stores the keys of one batch, in its transaction. @param block the batch's `next` offset */
  persist(client: ClientBase, block: number, keys: Buffer): Promise<void>;
  /** Whether `maintain` has work. */
  needsMaintenance(): boolean;
  /**
   * Seals, merges and expires for about `budgetMs`; only between batches. Every transaction of it begins with `fence`,
   * which throws when the shard has another owner.
   */
  maintain(client: ClientBase, fence: () => Promise<void>, budgetMs: number): Promise<void>;
  stats(): ClaimStats;
  /** Gives back its memory. */
  close(): void;
}

export interface ClaimStats {
  /** keys held exactly in memory */
  recent: number;
  runs: number;
  /** keys in runs */
  sealed: number;
  /** bytes of filters in memory */
  filterBytes: number;
  /** keys that had to be looked up in the database */
  lookups: number;
}
