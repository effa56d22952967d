import { createHash } from 'node:crypto';

/** JSON with sorted keys and no spaces (RFC 8785, for what statements hold: texts, safe integers, lists, objects). */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  const members = Object.entries(value).filter(([, one]) => one !== undefined);
  members.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, one]) => `${JSON.stringify(name)}:${canonicalJson(one)}`).join(',')}}`;
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
