/** A day of usage of five invented tenants, the same for the same seed. */

/** A log line with its real time (Unix ms); `sentAt` is when the stream brings it. */
export interface SampleEvent {
  at: number;
  sentAt: number;
  tenant: string;
  json: string;
}

interface Profile {
  tenant: string;
  /** events in the day */
  events: number;
  users: number;
  /** median latency, ms */
  latency: number;
  models: readonly string[];
}

const PROFILES: readonly Profile[] = [
  { tenant: 'northwind', events: 48_000, users: 900, latency: 120, models: ['large', 'small'] },
  { tenant: 'contoso', events: 24_000, users: 340, latency: 210, models: ['large'] },
  { tenant: 'fabrikam', events: 14_000, users: 120, latency: 90, models: ['small'] },
  { tenant: 'tailspin', events: 9_000, users: 60, latency: 400, models: ['large', 'small', 'vision'] },
  { tenant: 'wingtip', events: 5_000, users: 25, latency: 60, models: ['small'] },
];
const ENDPOINTS = [
  ['/api/v1/agents', 'POST'],
  ['/api/v1/agents', 'GET'],
  ['/api/v1/tasks', 'POST'],
  ['/api/v1/runs', 'GET'],
  ['/api/v1/search', 'GET'],
] as const;
const DAY = 86_400_000;
const LATE_SHARE = 0.02;
const LATE_MS = 3 * 3_600_000;

/** mulberry32: small, seeded, good enough for a sample. */
export function randomFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** The day that ends at `end` (Unix ms), in the order in which it is sent. */
export function makeDay(seed: number, end: number): SampleEvent[] {
  const random = randomFrom(seed);
  const day: SampleEvent[] = [];
  for (const profile of PROFILES) {
    for (let i = 0; i < profile.events; i++) {
      const at = end - DAY + Math.floor(timeOfDay(random) * (DAY - 1_000));
      const late = random() < LATE_SHARE ? Math.floor(random() * LATE_MS) : 0;
      day.push({
        at,
        sentAt: Math.min(end, at + late),
        tenant: profile.tenant,
        json: JSON.stringify(line(profile, i, at, random)),
      });
    }
  }
  return day.sort((a, b) => a.sentAt - b.sentAt);
}

/** Share of the day, 0 to 1: quiet at night, two humps by day. */
function timeOfDay(random: () => number): number {
  for (;;) {
    const t = random();
    const weight = 0.15 + 0.85 * Math.max(0, Math.sin((t - 0.25) * Math.PI * 2)) ** 0.7;
    if (random() < weight) return t;
  }
}

const pick = <T>(from: readonly T[], random: () => number): T => {
  const one = from[Math.floor(random() * from.length)];
  if (one === undefined) throw new RangeError('nothing to pick from');
  return one;
};

/** Log-normal around the median. */
const latency = (median: number, random: () => number): number =>
  Number(
    (median * Math.exp(0.6 * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()))).toFixed(2),
  );

function line(profile: Profile, i: number, at: number, random: () => number): Record<string, unknown> {
  const base = {
    timestamp: new Date(at).toISOString(),
    customer_id: profile.tenant,
    request_id: `${profile.tenant}-${i}`,
    user_id: `user_${Math.floor(random() ** 2 * profile.users)}`,
  };
  const kind = random();
  if (kind < 0.8) {
    const [endpoint, method] = pick(ENDPOINTS, random);
    const status = random() < 0.96 ? (method === 'POST' ? 201 : 200) : random() < 0.6 ? 404 : 500;
    return {
      ...base,
      level: status >= 500 ? 'error' : 'info',
      endpoint,
      method,
      status_code: status,
      duration_ms: latency(profile.latency, random),
      tokens_consumed: method === 'POST' ? Math.floor(200 + random() * 3_000) : 0,
      ...(method === 'POST' ? { model: pick(profile.models, random) } : {}),
    };
  }
  if (kind < 0.88)
    return {
      ...base,
      type: 'agent_invocation',
      agent_type: pick(['planner', 'coder', 'reviewer'], random),
      status: random() < 0.95 ? 'succeeded' : 'failed',
      duration_ms: latency(profile.latency * 20, random),
      queue_wait_ms: latency(15, random),
    };
  if (kind < 0.94)
    return { ...base, type: 'tool_use', tool: pick(['search', 'browser', 'python'], random), status: 'ok' };
  if (kind < 0.98) return { ...base, type: 'session', delta: random() < 0.5 ? 1 : -1 };
  return { ...base, type: 'feature_use', feature: pick(['export', 'share', 'dark-mode'], random) };
}
