/** How long a tenant's provisioning takes, from the request to `ready`, as there are more and more of them. */
import { setTimeout as delay } from 'node:timers/promises';
import { KEY } from './process.ts';
import { add, fresh, spread } from './report.ts';

const COUNTS = [1, 100, 500] as const;
const MEASURED = 20;
const AT_ONCE = 20;

const at = (values: readonly number[], q: number) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))] ?? 0;

/** p50 and p95 with 1, 100 and 500 tenants there, and of 20 asked for at once. */
export async function provisioning(): Promise<void> {
  const server = await fresh('tenants', { PROVISIONING_WAIT_MS: '60000' });
  let made = 0;
  const create = async (): Promise<number> => {
    const began = performance.now();
    const answer = await fetch(`${server.url}/api/v1/tenants`, {
      method: 'POST',
      headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
      body: JSON.stringify({ slug: `bench-${made++}`, name: 'bench', demo_data: true }),
    });
    const { status } = (await answer.json()) as { status: string };
    if (answer.status !== 201 || status !== 'ready') throw new Error(`a tenant is ${status} (${answer.status})`);
    return performance.now() - began;
  };
  try {
    for (const count of COUNTS) {
      while (made < count) await Promise.all(Array.from({ length: Math.min(8, count - made) }, create));
      // Connections of new tenants are closed when they are idle.
      await delay(1_000);
      const single: number[] = [];
      for (let i = 0; i < MEASURED; i++) single.push(await create());
      add(
        `provisioning at ${count} tenants`,
        `p50 ${Math.round(at(single, 0.5))} ms, p95 ${Math.round(at(single, 0.95))} ms (${spread(single)})`,
        '–',
        'p95 < 2 s',
      );
    }
    const crowd = await Promise.all(Array.from({ length: AT_ONCE }, create));
    add(
      `${AT_ONCE} tenants at once`,
      `p50 ${Math.round(at(crowd, 0.5))} ms, p95 ${Math.round(at(crowd, 0.95))} ms`,
      '–',
      'each < 30 s, p95 < 2 s',
    );
  } finally {
    await server.stop();
  }
}
