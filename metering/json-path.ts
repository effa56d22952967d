import { LIMITS, TidemarkError } from '../schemas/index.ts';

const FORBIDDEN = new Set(['__proto__', 'constructor', 'prototype']);
/** A member by name: `.name` or `['any name']`, with `\'` and `\\` inside (RFC 9535, child segments only). */
const SEGMENT =
  /\.([A-Za-z_\u0080-\uffff][\w\u0080-\uffff-]*)|\[(?:'((?:[^'\\]|\\['\\])*)'|"((?:[^"\\]|\\["\\])*)")\]/y;

/**
 * The attribute that a JSONPath names: `$.tokens` is `tokens`, `$.usage.input_tokens` and `$['usage.input_tokens']` are
 * `usage.input_tokens`, as ingest flattens them. It is a name from here on, never a piece of a statement.
 * @param field what to call it in the error
 * @throws TidemarkError `invalid_json_path` for everything but names after `$`
 */
export function attributeOfPath(path: string, field: string): string {
  const refuse = (why: string) => {
    throw new TidemarkError('invalid_json_path', `${field}: ${why}`, { extensions: { field } });
  };
  if (!path.startsWith('$')) refuse('a path begins with $');
  const names: string[] = [];
  SEGMENT.lastIndex = 1;
  let at = 1;
  while (at < path.length) {
    SEGMENT.lastIndex = at;
    const match = SEGMENT.exec(path);
    if (match === null) {
      refuse(`only names may follow $, not what begins at character ${at + 1}`);
      break;
    }
    const name = match[1] ?? (match[2] ?? match[3] ?? '').replace(/\\(.)/g, '$1');
    if (name === '') refuse('a name is empty');
    names.push(name);
    at = SEGMENT.lastIndex;
  }
  if (names.length === 0) refuse('a name must follow $');
  return checkedAttribute(names.join('.'), field);
}

/** Checks a name that came without a path. @throws TidemarkError `invalid_json_path` */
export function checkedAttribute(name: string, field: string): string {
  const bad =
    name === '' ||
    Buffer.byteLength(name) > LIMITS.attributeBytes ||
    !name.isWellFormed() ||
    hasControl(name) ||
    name.split('.').some((part) => FORBIDDEN.has(part));
  if (bad)
    throw new TidemarkError('invalid_json_path', `${field}: no event has an attribute of that name`, {
      extensions: { field },
    });
  return name;
}

/** Whether a text has a character that no identifier may have. */
export function hasControl(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 32 || code === 127) return true;
  }
  return false;
}
