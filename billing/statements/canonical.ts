import { createHash } from 'node:crypto';

/** JSON with sorted keys and no spaces (RFC 8785, for what statements hold: texts, safe integers, lists, objects). */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  const values: unknown[] = Object.values(value);
  const members: string[] = [];
  for (const { at, quoted } of orderOf(Object.keys(value)))
    if (values[at] !== undefined) members.push(quoted + canonicalJson(values[at]));
  // Joined, not added up: a sum of texts keeps its parts in memory.
  return `{${members.join(',')}}`;
}

interface Member {
  /** place among the object's own keys */
  at: number;
  /** name with its colon */
  quoted: string;
}

/** Sorted names by shape: statements are a million objects of a few shapes. */
const ORDERS = new Map<string, readonly Member[]>();
const MOST_SHAPES = 10_000;

function orderOf(names: readonly string[]): readonly Member[] {
  const shape = JSON.stringify(names);
  const known = ORDERS.get(shape);
  if (known !== undefined) return known;
  if (ORDERS.size >= MOST_SHAPES) ORDERS.clear();
  // The default order of texts is by UTF-16 code units, as the RFC wants it.
  const order = names.toSorted().map((name) => ({ at: names.indexOf(name), quoted: `${JSON.stringify(name)}:` }));
  ORDERS.set(shape, order);
  return order;
}

/**
 * The canonical JSON of a statement in pieces, its lines under `lines`: a million of them need not be one text.
 * @param head canonical JSON of everything else
 */
export function* statementText(head: string, lines: Iterable<string>): Generator<string> {
  const members: Record<string, unknown> = JSON.parse(head);
  const names = [...Object.keys(members), 'lines'].sort();
  let separator = '{';
  for (const name of names) {
    yield `${separator}${JSON.stringify(name)}:`;
    separator = ',';
    if (name !== 'lines') {
      yield canonicalJson(members[name]);
      continue;
    }
    let between = '[';
    for (const line of lines) {
      yield `${between}${line}`;
      between = ',';
    }
    yield between === '[' ? '[]' : ']';
  }
  yield '}';
}

/** SHA-256 over it, hex. */
export function checksumOf(head: string, lines: Iterable<string>): string {
  const hash = createHash('sha256');
  for (const piece of statementText(head, lines)) hash.update(piece);
  return hash.digest('hex');
}
