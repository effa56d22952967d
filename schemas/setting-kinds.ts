/** The kinds of settings: what a text must look like, and what it becomes. */

export interface Rate {
  /** events a second */
  perSecond: number;
  /** events that may come at once */
  burst: number;
}

export const ROLES = ['ingest', 'processors', 'query', 'jobs'] as const;
export type Role = (typeof ROLES)[number];

export interface Setting<T> {
  /** shown in the manual; undefined: unset */
  initial: string | undefined;
  about: string;
  secret?: true;
  /** @throws Error with what is wrong */
  parse(text: string): T;
}

export const text = (initial: string, about: string): Setting<string> & { initial: string } => ({
  initial,
  about,
  parse: (value) => value,
});
/** Unset by default. */
export type Optional<T> = Setting<T> & { initial: undefined };
export const secret = (about: string, least = 0): Optional<string> => ({
  initial: undefined,
  about,
  secret: true,
  parse: (value) => {
    if (value.length < least) throw new Error(`must have at least ${least} characters`);
    return value;
  },
});
export const optional = <T>(about: string, parse: (value: string) => T): Setting<T> & { initial: undefined } => ({
  initial: undefined,
  about,
  parse,
});
export const integer = (initial: number, least: number, most: number, about: string): Setting<number> => ({
  initial: String(initial),
  about,
  parse: (value) => {
    const number = Number(value);
    if (!/^\d+$/.test(value) || number < least || number > most)
      throw new Error(`must be a whole number from ${least} to ${most}`);
    return number;
  },
});
export const choice = <const T extends string>(initial: NoInfer<T>, of: readonly T[], about: string): Setting<T> => ({
  initial,
  about,
  parse: (value) => {
    const found = of.find((one) => one === value);
    if (found === undefined) throw new Error(`must be one of ${of.join(', ')}`);
    return found;
  },
});
export const rate = (initial: string, about: string): Setting<Rate | null> => ({
  initial,
  about,
  parse: (value) => {
    if (value === 'none') return null;
    const match = /^(\d{1,9}):(\d{1,9})$/.exec(value);
    const perSecond = Number(match?.[1]);
    const burst = Number(match?.[2]);
    if (!(perSecond >= 1 && burst >= 1)) throw new Error('must be "<events a second>:<burst>" or "none"');
    return { perSecond, burst };
  },
});

export function parseDatabaseUrl(value: string): string {
  const url = URL.parse(value);
  // The value holds a password: it is not repeated.
  if (url === null || !/^postgres(ql)?:$/.test(url.protocol)) throw new Error('must be a postgres:// URL');
  return value;
}

export function parseBucket(value: string): string {
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(value)) throw new Error('must be the name of an S3 bucket');
  return value;
}

export function parseHttpUrl(value: string): string {
  const url = URL.parse(value);
  if (url === null || !/^https?:$/.test(url.protocol)) throw new Error('must be an http:// or https:// URL');
  return value;
}

export function parsePrefix(value: string): string {
  if (!/^([\w=.-]+(\/[\w=.-]+)*)?$/.test(value)) throw new Error('must be made of letters, digits, and = . _ - /');
  return value;
}

export function parseBrokers(value: string): readonly string[] {
  const brokers = value.split(',').map((part) => part.trim());
  if (brokers.some((broker) => !/^[^\s:/]+:\d{1,5}$/.test(broker))) throw new Error('must be "host:port,host:port,…"');
  return brokers;
}

export function parseSmtpUrl(value: string): string {
  const url = URL.parse(value);
  // The value may hold a password: it is not repeated.
  if (url === null || !/^smtps?:$/.test(url.protocol)) throw new Error('must be a smtp:// or smtps:// URL');
  return value;
}

export function parseRoles(value: string): ReadonlySet<Role> {
  const roles = value.split(',').map((part) => part.trim());
  const known = ROLES.filter((role) => roles.includes(role));
  if (known.length === 0 || roles.some((role) => !ROLES.some((one) => one === role)))
    throw new Error(`must list some of ${ROLES.join(', ')}`);
  return new Set(known);
}

export function parseSpread(value: string): ReadonlyMap<string, number> {
  const spread = new Map<string, number>();
  for (const part of value.split(',').filter((one) => one.trim() !== '')) {
    const match = /^\s*(.+)=(\d{1,4})\s*$/.exec(part);
    const count = Number(match?.[2]);
    if (match?.[1] === undefined || count < 1) throw new Error(`must be "customer=partitions,…", not "${part}"`);
    spread.set(match[1], count);
  }
  return spread;
}
