import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Duck, openDuck } from './duckdb.ts';
import type { TieringDeps, TieringSettings } from './ports.ts';

/** Runs `work` with a folder of its own and a DuckDB, both gone afterwards. */
export async function withScratch<T>(
  { scratch, settings }: Pick<TieringDeps, 'scratch'> & { settings: Pick<TieringSettings, 'memoryBytes' | 'threads'> },
  work: (folder: string, duck: Duck) => Promise<T>,
): Promise<T> {
  await mkdir(scratch, { recursive: true });
  const folder = await mkdtemp(join(scratch, 'day-'));
  const duck = await openDuck({ scratch: folder, ...settings, isWriter: true });
  try {
    return await work(folder, duck);
  } finally {
    await duck.close();
    await rm(folder, { recursive: true, force: true });
  }
}
