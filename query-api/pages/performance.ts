import { Decimal } from 'decimal.js';
import type { MeterRow } from '../meters/meter-query.ts';
import type { Snapshot } from '../meters/snapshot.ts';
import { askIn, inWindows, listed, type PageScope, presentScope, totalOf } from './ask.ts';

/** Everything that a performance dashboard shows, from one snapshot. Quantiles are milliseconds, good to 1 %. */
export async function performancePage(snapshot: Snapshot, scope: PageScope) {
  const ask = askIn(snapshot, scope);
  const { windowSize } = scope;
  const requests = totalOf(await ask('api_calls'));
  const errors = totalOf(await ask('errors'));
  const calls = byKey(await ask('api_calls', { groupBy: ['endpoint', 'method'], limit: 10_000 }));
  const failed = byKey(await ask('errors', { groupBy: ['endpoint'], limit: 10_000 }));
  const callsOfEndpoint = byKey(await ask('api_calls', { groupBy: ['endpoint'], limit: 10_000 }));
  const durations = await ask('request_duration', { groupBy: ['endpoint', 'method'] });
  const quantiles = async (meter: string, groupBy: string[]) =>
    (await ask(meter, { groupBy })).map((row) => ({ ...named(groupBy, row), ...row.quantiles }));
  return {
    ...presentScope(scope),
    totals: {
      requests,
      errors,
      error_rate: rate(errors, requests),
      duration_ms: await overall('request_duration'),
      agent_duration_ms: await overall('agent_duration'),
      queue_wait_ms: await overall('queue_wait'),
    },
    series: inWindows({
      requests: await ask('api_calls', { windowSize }),
      errors: await ask('errors', { windowSize }),
      duration_ms: await ask('request_duration', { windowSize }),
    }),
    by_endpoint: durations.map((row) => {
      const endpoint = JSON.stringify([row.key[0]]);
      return {
        ...named(['endpoint', 'method'], row),
        requests: calls.get(JSON.stringify(row.key)) ?? '0',
        // Errors are counted by endpoint, whatever the method.
        error_rate: rate(failed.get(endpoint) ?? '0', callsOfEndpoint.get(endpoint) ?? '0'),
        ...row.quantiles,
      };
    }),
    by_agent_type: await quantiles('agent_duration', ['agent_type']),
    queue_wait: await quantiles('queue_wait', ['endpoint', 'agent_type']),
    errors: listed(
      await ask('errors', { groupBy: ['endpoint', 'error_type', 'status_code'] }),
      ['endpoint', 'error_type', 'status_code'],
      'errors',
    ),
  };

  async function overall(meter: string) {
    return (await ask(meter))[0]?.quantiles ?? null;
  }
}

const named = (groups: readonly string[], row: MeterRow) =>
  Object.fromEntries(groups.map((group, i) => [group, row.key[i] ?? null]));

const byKey = (rows: readonly MeterRow[]) => new Map(rows.map((row) => [JSON.stringify(row.key), row.value]));

/** A share of 1, to four decimals. */
const rate = (part: string, whole: string): string =>
  whole === '0' ? '0' : new Decimal(part).div(whole).toDecimalPlaces(4).toFixed();
