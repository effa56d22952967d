/** What the benches share: the figures, how they are said, a fresh server. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { copyDatabase, remakeDatabase } from './external-database.ts';
import { type BenchServer, startBenchServer } from './process.ts';

export interface Figure {
  bench: string;
  figure: string;
  yardstick: string;
  aim: string;
}

export const figures: Figure[] = [];
export const add = (bench: string, figure: string, yardstick: string, aim: string) => {
  figures.push({ bench, figure, yardstick, aim });
  process.stderr.write(`${bench}: ${figure}${yardstick === '–' ? '' : ` (${yardstick})`}\n`);
};
export const rate = (events: number, seconds: number) =>
  `${Math.round(events / seconds).toLocaleString('en')} events/s`;
export const SCRATCH = fileURLToPath(new URL('./scratch/', import.meta.url));
export const RUNS = 3;
export const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
export const spread = (values: number[]) =>
  `${Math.round(Math.min(...values)).toLocaleString('en')}–${Math.round(Math.max(...values)).toLocaleString('en')}`;

export async function fresh(name: string, env: Record<string, string> = {}): Promise<BenchServer> {
  rmSync(`${SCRATCH}${name}`, { recursive: true, force: true });
  mkdirSync(SCRATCH, { recursive: true });
  await remakeDatabase(`${SCRATCH}${name}`);
  return startBenchServer(`${SCRATCH}${name}`, env);
}

/** A data folder as another one is whose server has stopped, database included, on disk. */
export async function copyData(from: string, to: string): Promise<void> {
  rmSync(`${SCRATCH}${to}`, { recursive: true, force: true });
  execFileSync('cp', ['-a', `${SCRATCH}${from}`, `${SCRATCH}${to}`]);
  await copyDatabase(`${SCRATCH}${from}`, `${SCRATCH}${to}`);
  execFileSync('sync');
}
