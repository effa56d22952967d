import { DAY } from './rollups/rollups.ts';

/** The day (UTC) that a time is in: its start, Unix ms. */
export const startOfDay = (ms: number): number => Math.floor(ms / DAY) * DAY;

/** The day (UTC) that a time is in, YYYY-MM-DD. */
export const dateOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10);
