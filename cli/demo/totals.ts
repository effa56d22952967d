import { setTimeout as delay } from 'node:timers/promises';
import { TidemarkError } from '../../schemas/index.ts';

/** What the server says of one tenant, read through its API alone. */
export interface TenantTotals {
  tenant: string;
  requests: bigint;
  tokens: bigint;
  tokensByEndpoint: Map<string, bigint>;
  quantiles: { p50: number; p95: number; p99: number } | undefined;
  duplicates: number;
}

interface MeterAnswer {
  data: {
    value: string;
    subject: string;
    groupBy: Record<string, string | null>;
    quantiles?: { p50: number; p95: number; p99: number };
  }[];
}

/** A reader of the API of a server. */
export function openReader(url: string, key: string) {
  const get = async <T>(path: string): Promise<T> => {
    const answer = await fetch(`${url}${path}`, {
      headers: { authorization: `Bearer ${key}`, accept: 'application/vnd.tidemark+json' },
    });
    if (!answer.ok)
      throw new TidemarkError('internal', `GET ${path} answered ${answer.status}: ${await answer.text()}`);
    return (await answer.json()) as T;
  };
  type Counts = {
    received: number;
    accepted: number;
    duplicate: number;
    dead_lettered: number;
    pending: number | null;
  };
  const reconcile = () =>
    get<{ total: Counts; tenants: (Counts & { tenant: string | null })[] }>('/api/v1/reconciliation');
  const query = (meter: string, groupBy: string) =>
    get<MeterAnswer>(`/api/v1/meters/${meter}/query?groupBy=${groupBy}`);

  return {
    query,
    reconcile,
    /** Waits until every acknowledged event is counted. */
    settle: async (onWait: (pending: number) => void) => {
      for (;;) {
        const { total } = await reconcile();
        if (total.pending === 0) return total;
        onWait(total.pending ?? 0);
        await delay(100);
      }
    },
    totals: async (): Promise<TenantTotals[]> => {
      const { tenants } = await reconcile();
      const calls = await query('api_calls', 'subject');
      const tokens = await query('tokens', 'subject,endpoint');
      const durations = await query('request_duration', 'subject');
      return tenants
        .filter((row): row is typeof row & { tenant: string } => row.tenant !== null)
        .map(({ tenant, duplicate }) => {
          const byEndpoint = new Map<string, bigint>();
          for (const row of tokens.data)
            if (row.subject === tenant) byEndpoint.set(row.groupBy.endpoint ?? '–', BigInt(row.value));
          return {
            tenant,
            requests: BigInt(calls.data.find((row) => row.subject === tenant)?.value ?? 0),
            tokens: [...byEndpoint.values()].reduce((sum, value) => sum + value, 0n),
            tokensByEndpoint: byEndpoint,
            quantiles: durations.data.find((row) => row.subject === tenant)?.quantiles,
            duplicates: duplicate,
          };
        });
    },
  };
}
export type Reader = ReturnType<typeof openReader>;
