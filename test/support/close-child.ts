/**
 * A process that closes periods and is killed at a step: `node close-child.ts DATABASE_URL NOW STEP NTH`.
 * STEP `none` runs to the end.
 */
import { type CloseStep, closePeriods } from '../../billing/index.ts';
import { connect } from '../../sinks/index.ts';
import { billingOn } from './billing.ts';

const [url = '', now = '', step = 'none', nth = '1'] = process.argv.slice(2);
const pool = connect(url, { max: 2, name: 'close-child' });
let seen = 0;
const atStep = (reached: CloseStep) => {
  if (reached === step && ++seen === Number(nth)) process.kill(process.pid, 'SIGKILL');
};
await closePeriods({ ...billingOn(pool, () => Date.parse(now)), batch: 2, atStep }, Date.parse(now));
await pool.end();
