/** A day of the archive on its way back into the database, and out of it again. */

import { dayOf, fill, jobOf, OLD, today, withServer } from './archive.ts';
import { add, rate } from './report.ts';

/** Ten a second: events have whole milliseconds. */
const EVENTS = 864_000;
const DAY = 86_400_000;

/** @throws unless every row is back, and gone again */
export const archiveRecall = (): Promise<void> =>
  withServer('recall', { ARCHIVE_DUTY_PERCENT: '100' }, async (server, pool) => {
    const day = dayOf(today - 120 * DAY);
    await fill(pool, today - 120 * DAY, 1, EVENTS);
    const count = async () =>
      (await pool.query<{ n: number }>('SELECT count(*)::float8 AS n FROM events')).rows[0]?.n ?? 0;
    const expect = async (rows: number) => {
      const found = await count();
      if (found !== rows) throw new Error(`${found} rows in the database, expected ${rows}`);
    };
    const out = await jobOf(server, '/api/v1/archives/run', OLD);
    await expect(0);
    let peak = 0;
    const before = server.rss();
    const back = await jobOf(server, `/api/v1/archives/${day}/recall`, { days: 7 }, () => {
      peak = Math.max(peak, server.rss());
    });
    await expect(EVENTS);
    await jobOf(server, `/api/v1/archives/${day}/recall`, { days: 0 });
    const again = await jobOf(server, '/api/v1/archives/run', OLD);
    await expect(0);
    add(
      'recall, a day of 864,000 events',
      `${rate(EVENTS, back)}, ${Math.round((peak - before) / 1e6)} MB more memory`,
      `archived at first at ${rate(EVENTS, out)}`,
      'bounded memory',
    );
    add('recall, leaving unchanged', rate(EVENTS, again), `${(out / again).toFixed(1)} × writing it`, 'no write');
  });
