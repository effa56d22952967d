/** What the benches measured last, as the README shows it. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Figure } from './report.ts';

export const RESULTS = fileURLToPath(new URL('./results.json', import.meta.url));

export interface Results {
  machine: string;
  /** by name of the bench */
  benches: Record<string, { date: string; figures: Figure[] } | undefined>;
}

export function readResults(): Results {
  try {
    return JSON.parse(readFileSync(RESULTS, 'utf8')) as Results;
  } catch {
    return { machine: '', benches: {} };
  }
}

/** In Markdown. */
export function resultsTable({ machine, benches }: Results): string {
  const measured = Object.values(benches).filter((one) => one !== undefined);
  const dates = measured.map((one) => one.date).sort();
  const rows = measured.flatMap(({ figures }) =>
    figures.map(({ bench, figure, yardstick, aim }) => `| ${bench} | ${figure} | ${yardstick} | ${aim} |`),
  );
  return `${machine}; ${[...new Set([dates.at(0), dates.at(-1)])].join(' to ')}.

| bench | figure | beside it, in the same run | aim |
|---|---|---|---|
${rows.join('\n')}`;
}
