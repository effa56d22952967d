/** What a fault test has sent, and whether exactly that was counted: raw events, rollups and accounts (P1 to P4). */
import { expect } from 'vitest';
import type { TestServer } from './server.ts';

interface SentEvent {
  tenant: string;
  tokens: number;
  user: string;
}

export class Ledger {
  readonly #sent = new Map<string, SentEvent>();
  #serial = 0;

  /** distinct events handed out so far */
  get size(): number {
    return this.#sent.size;
  }

  /** Log lines of three tenants; a third of them was handed out before. */
  makeLines(count: number): string[] {
    const now = Date.now();
    const lines: string[] = [];
    const known = [...this.#sent.keys()];
    for (let i = 0; i < count; i++) {
      const repeat = i % 3 === 2 ? known[(i * 7919) % Math.max(1, known.length)] : undefined;
      const key = repeat ?? `event-${this.#serial++}`;
      const serial = this.#serial;
      const event = this.#sent.get(key) ?? {
        tenant: `tenant-${serial % 3}`,
        tokens: serial % 1000,
        user: `user-${serial % 50}`,
      };
      this.#sent.set(key, event);
      lines.push(
        JSON.stringify({
          timestamp: new Date(now - (serial % 7) * 3_600_000 - (serial % 60) * 60_000).toISOString(),
          customer_id: event.tenant,
          idempotency_key: key,
          user_id: event.user,
          endpoint: `/e${serial % 4}`,
          method: 'GET',
          status_code: 200,
          duration_ms: serial % 300,
          tokens_consumed: event.tokens,
        }),
      );
    }
    return lines;
  }

  /** Waits until nothing is pending, then compares. Everything handed out must have been acknowledged. */
  async verify(server: TestServer): Promise<void> {
    const total = await server.settled();
    expect(total.accepted).toBe(this.#sent.size);
    expect(total.received).toBe(total.accepted + total.duplicate + total.dead_lettered);
    expect(total.dead_lettered).toBe(0);
    const expected = Map.groupBy(this.#sent.values(), (event) => event.tenant);
    for (const [meter, value] of [
      ['api_calls', (own: SentEvent[]) => own.length],
      ['tokens', (own: SentEvent[]) => own.reduce((sum, one) => sum + one.tokens, 0)],
      ['active_users', (own: SentEvent[]) => new Set(own.map((one) => one.user)).size],
    ] as const) {
      const { data } = await server.json<{ data: { subject: string; value: number }[] }>(
        `/api/v1/meters/${meter}/query?groupBy=subject`,
      );
      expect(Object.fromEntries(data.map((row) => [row.subject, row.value]))).toEqual(
        Object.fromEntries([...expected].map(([tenant, own]) => [tenant, value(own)])),
      );
    }
  }
}
