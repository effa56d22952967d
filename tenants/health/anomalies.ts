/** Tells what is unusual for a tenant from its own history. Pure. */

export const FINDINGS = [
  'drift',
  'behind',
  'growth',
  'storage',
  'slow_queries',
  'error_rate',
  'inactive',
  'unreachable',
] as const;
export interface Finding {
  kind: (typeof FINDINGS)[number];
  /** whether somebody should look now; a note otherwise */
  alert: boolean;
  detail: string;
}

/** One look at a schema. */
export interface Look {
  /** Unix ms */
  at: number;
  bytes: number;
  slowQueries: number;
  events: number;
  errors: number;
}

export interface Limits {
  /** bytes from which a schema is worth an alert */
  storageBytes: number;
  /** days without an event after which archival is proposed */
  inactiveDays: number;
}

/** Looks that a judgement needs at least: half an hour of them. */
const LEAST_HISTORY = 6;
/** An outlier is so many times the usual deviation away from the median: 3.5 is Iglewicz and Hoaglin's (1993) cut. */
const OUTLIER = 3.5;
/** Median absolute deviation to standard deviation, for a normal distribution. */
const MAD_SCALE = 1.4826;
/** Growth below this is noise, whatever the history. */
const LEAST_GROWTH = 16 << 20;
const LEAST_ERRORS = 10;

/**
 * @param history earlier looks, oldest first
 * @param lastEvent Unix ms, null: never
 */
export function findAnomalies(
  look: Look,
  history: readonly Look[],
  { lastEvent, since }: { lastEvent: number | null; since: number },
  limits: Limits,
): Finding[] {
  const found: Finding[] = [];
  const previous = history.at(-1);
  const growths = history.slice(1).map((one, i) => one.bytes - (history[i]?.bytes ?? one.bytes));
  const growth = previous === undefined ? 0 : look.bytes - previous.bytes;
  if (growth >= LEAST_GROWTH && isOutlier(growth, growths))
    found.push({
      kind: 'growth',
      alert: true,
      detail: `grew by ${growth} bytes since the last look, usually ${median(growths)}`,
    });
  if (look.bytes >= limits.storageBytes)
    found.push({ kind: 'storage', alert: true, detail: `${look.bytes} bytes, the limit is ${limits.storageBytes}` });
  if (
    isOutlier(
      look.slowQueries,
      history.map((one) => one.slowQueries),
    )
  )
    found.push({ kind: 'slow_queries', alert: true, detail: `${look.slowQueries} statements run for long` });
  const rates = history.map(rateOf);
  if (look.errors >= LEAST_ERRORS && isOutlier(rateOf(look), rates))
    found.push({
      kind: 'error_rate',
      alert: true,
      detail: `${percent(rateOf(look))} of calls failed in the last hour, usually ${percent(median(rates))}`,
    });
  const idleDays = (look.at - (lastEvent ?? since)) / 86_400_000;
  if (idleDays >= limits.inactiveDays)
    found.push({
      kind: 'inactive',
      alert: false,
      detail: `no event for ${Math.floor(idleDays)} days: archival is proposed`,
    });
  return found;
}

/** Whether a value is far above what is usual: by the median and the median absolute deviation, which outliers don't move. */
export function isOutlier(value: number, history: readonly number[]): boolean {
  if (history.length < LEAST_HISTORY) return false;
  const usual = median(history);
  const deviation = MAD_SCALE * median(history.map((one) => Math.abs(one - usual)));
  // A history without any deviation: anything clearly above it is unusual.
  const step = deviation === 0 ? Math.max(Math.abs(usual) * 0.1, Number.EPSILON) : deviation;
  return value - usual > OUTLIER * step;
}

const rateOf = (look: Look): number => (look.events === 0 ? 0 : look.errors / look.events);
const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}
