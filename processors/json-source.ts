/** A name's place in an object, and what is found there. */
interface Node {
  children: Map<string, Node>;
  /** who wants the value, and how much: of two values the lower rank wins */
  wanted: { slot: number; rank: number }[];
}

const QUOTE = 34;
const COMMA = 44;
const COLON = 58;
const OPEN_ARRAY = 91;
const BACKSLASH = 92;
const CLOSE_ARRAY = 93;
const OPEN = 123;
const CLOSE = 125;

/**
 * Finds members of JSON objects by path and gives their source text: numbers keep every digit, and nothing that is not
 * asked for is made. The text must be valid JSON (the archive's was written by a database).
 */
export class JsonSource {
  readonly #root: Node = { children: new Map(), wanted: [] };
  readonly #ranks: number[] = [];
  #json = '';
  #values: (string | null)[] = [];

  /** @param rank of two paths of a slot the lower one counts where both are there; of a repeated name the first */
  want(slot: number, path: readonly string[], rank: number): void {
    let node = this.#root;
    for (const name of path) {
      const child = node.children.get(name) ?? { children: new Map(), wanted: [] };
      node.children.set(name, child);
      node = child;
    }
    node.wanted.push({ slot, rank });
  }

  /** Puts the source of each slot that the object has into `values`, null for the others. */
  read(json: string, values: (string | null)[]): void {
    this.#json = json;
    this.#values = values;
    values.fill(null);
    this.#ranks.length = 0;
    const start = this.#blank(0);
    if (json.charCodeAt(start) === OPEN) this.#object(start, this.#root);
  }

  /** @returns the place behind it */
  #object(start: number, node: Node): number {
    const json = this.#json;
    let at = this.#blank(start + 1);
    while (json.charCodeAt(at) === QUOTE) {
      const end = this.#string(at);
      const raw = json.slice(at + 1, end - 1);
      const child = node.children.get(raw.includes('\\') ? String(JSON.parse(json.slice(at, end))) : raw);
      at = this.#blank(end);
      if (json.charCodeAt(at) !== COLON) throw new SyntaxError(`no JSON at ${at}`);
      at = this.#blank(at + 1);
      const from = at;
      at =
        child !== undefined && child.children.size > 0 && json.charCodeAt(at) === OPEN
          ? this.#object(at, child)
          : this.#value(at);
      if (child !== undefined) this.#take(child, from, at);
      at = this.#blank(at);
      if (json.charCodeAt(at) === COMMA) at = this.#blank(at + 1);
    }
    if (json.charCodeAt(at) !== CLOSE) throw new SyntaxError(`no JSON at ${at}`);
    return at + 1;
  }

  #take(node: Node, from: number, to: number): void {
    for (const { slot, rank } of node.wanted) {
      const known = this.#ranks[slot];
      if (known !== undefined && known <= rank) continue;
      this.#ranks[slot] = rank;
      this.#values[slot] = this.#json.slice(from, to);
    }
  }

  #value(start: number): number {
    const json = this.#json;
    const first = json.charCodeAt(start);
    if (first === QUOTE) return this.#string(start);
    let at = start;
    if (first !== OPEN && first !== OPEN_ARRAY) {
      while (at < json.length && !isEnd(json.charCodeAt(at))) at++;
      return at;
    }
    for (let depth = 0; at < json.length; ) {
      const code = json.charCodeAt(at);
      if (code === QUOTE) {
        at = this.#string(at);
        continue;
      }
      at++;
      if (code === OPEN || code === OPEN_ARRAY) depth++;
      else if ((code === CLOSE || code === CLOSE_ARRAY) && --depth === 0) return at;
    }
    throw new SyntaxError('JSON ends early');
  }

  #string(start: number): number {
    const json = this.#json;
    for (let at = json.indexOf('"', start + 1); at >= 0; at = json.indexOf('"', at + 1)) {
      let escapes = 0;
      while (json.charCodeAt(at - 1 - escapes) === BACKSLASH) escapes++;
      if (escapes % 2 === 0) return at + 1;
    }
    throw new SyntaxError('JSON ends early');
  }

  #blank(at: number): number {
    while (isBlank(this.#json.charCodeAt(at))) at++;
    return at;
  }
}

const isBlank = (code: number): boolean => code === 32 || (code >= 9 && code <= 13);
const isEnd = (code: number): boolean => code === COMMA || code === CLOSE || code === CLOSE_ARRAY || isBlank(code);
