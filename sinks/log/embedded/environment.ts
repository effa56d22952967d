import type { RootDatabase } from 'lmdb';

export interface EmbeddedLogOptions {
  /** folder of the environment; made if missing */
  directory: string;
  topic?: string;
  /** fixed when the log is made */
  partitions?: number;
  /** a member that has not been heard of for so long loses its partitions */
  sessionTimeoutMs?: number;
  /** how often an idle reader looks for records that another thread or process has appended */
  pollMs?: number;
  /** records kept per partition below the committed offset */
  retainRecords?: number;
}

/** What the log's modules share. */
export interface Environment {
  root: RootDatabase;
  blocks: ReturnType<RootDatabase['openDB']>;
  state: ReturnType<RootDatabase['openDB']>;
  options: Required<EmbeddedLogOptions>;
}

/** Offset that the next record of a partition gets. */
export function endOf(env: Environment, partition: number): number {
  const end: unknown = env.state.get(['end', partition]);
  return typeof end === 'number' ? end : 0;
}

/** The base offset in a block's key. */
export function keyOffset(key: unknown): number {
  const offset = Array.isArray(key) ? key[1] : undefined;
  if (typeof offset !== 'number') throw new Error('the embedded log holds a foreign key');
  return offset;
}
