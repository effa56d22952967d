import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { ObjectStore, StorageEngine } from '../sinks/index.ts';

export interface TieringSettings {
  /** days (UTC) that raw events stay in the database */
  hotDays: number;
  /** most rows of one file */
  partRows: number;
  /** memory of one DuckDB instance, bytes: the writer and the reader have one each */
  memoryBytes: number;
  threads: number;
  /** share of the time that the archiver works, 1 to 100; it rests for the other part after every file */
  dutyPercent: number;
  /** zstd level, 1 to 22 */
  zstdLevel: number;
  /** bytes of files kept on disk for reading */
  cacheBytes: number;
  /** how long an archiver holds a day without a sign of life, ms */
  leaseMs: number;
  lifecycle: LifecycleSettings;
}

/** Ages in days at which files change their storage class, and end; 0: never. */
export interface LifecycleSettings {
  infrequentDays: number;
  glacierDays: number;
  expireDays: number;
}

/** Places at which a test may stop the process; `fault` is called with each as it is passed. */
export const ARCHIVE_STEPS = [
  'claimed',
  'spooled',
  'part-written',
  'part-stored',
  'manifest-stored',
  'written',
  'read-back',
  'verified',
  'checked',
  'detached',
  'dropped',
  'archived',
] as const;
export type ArchiveStep = (typeof ARCHIVE_STEPS)[number];
/** The same of a day on its way back. */
export const RECALL_STEPS = [
  'recall-claimed',
  'recall-loaded',
  'recall-checked',
  'recall-swapped',
  'recalled',
] as const;
export type RecallStep = (typeof RECALL_STEPS)[number];

export interface TieringDeps {
  /** without a statement timeout: a day takes its time */
  pool: Pool;
  engine: StorageEngine;
  store: ObjectStore;
  /** a folder of our own for files on their way; emptied at start */
  scratch: string;
  settings: TieringSettings;
  logger: Logger;
  /** Unix ms */
  now(): number;
  /**
   * Makes the minute rollups of a day whose raw events are in the database again.
   * @param day its start, Unix ms @returns whether they are there
   */
  bringMinutesBack?(day: number, signal: AbortSignal): Promise<boolean>;
  fault?(step: ArchiveStep | RecallStep): void;
}

/** What a run of a job gives: stop early, and say how far it is. */
export interface Progress {
  signal: AbortSignal;
  progress(state: Record<string, unknown>): Promise<void>;
}
