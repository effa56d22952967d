/**
 * Holds the import table of the architecture: which room may import which, only through its `index.ts`, and no cycles
 * of files. Run by `npm run rooms`.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const EVERY = [
  'schemas',
  'metering',
  'sinks',
  'ingest',
  'processors',
  'tenants',
  'billing',
  'tiering',
  'jobs',
  'query-api',
  'cli',
  'test',
  'bench',
];
export const TABLE: Record<string, readonly string[]> = {
  schemas: [],
  metering: ['schemas'],
  sinks: ['schemas'],
  ingest: ['schemas', 'sinks'],
  processors: ['schemas', 'metering', 'sinks'],
  tenants: ['schemas', 'sinks'],
  billing: ['schemas', 'metering', 'sinks'],
  tiering: ['schemas', 'metering', 'sinks'],
  jobs: ['schemas', 'sinks', 'billing', 'tiering', 'tenants'],
  'query-api': ['schemas', 'metering', 'sinks', 'tenants', 'billing', 'tiering'],
  cli: EVERY,
  test: EVERY,
  bench: EVERY,
};
const IMPORT =
  /(?:^|\n)\s*(?:import|export)\s[^'"]*?from\s+'(\.[^']+)'|(?:^|\n)\s*import\s+'(\.[^']+)'|import\(\s*'(\.[^']+)'\s*\)/g;

/** Every file's imports of ours, as paths from the root. */
export type Graph = ReadonlyMap<string, readonly string[]>;

export function readGraph(root: string): Graph {
  const graph = new Map<string, string[]>();
  for (const room of Object.keys(TABLE)) {
    let files: string[];
    try {
      files = readdirSync(join(root, room), { recursive: true, encoding: 'utf8' });
    } catch {
      continue;
    }
    for (const file of files.filter((name) => name.endsWith('.ts'))) {
      const path = join(room, file);
      graph.set(path, importsOf(path, readFileSync(join(root, path), 'utf8')));
    }
  }
  return graph;
}

export function importsOf(path: string, source: string): string[] {
  return [...source.matchAll(IMPORT)].map((match) =>
    normalize(join(dirname(path), match[1] ?? match[2] ?? match[3] ?? '')),
  );
}

/** What breaks the table, one line each. */
export function violations(graph: Graph): string[] {
  const found: string[] = [];
  for (const [path, imports] of graph) {
    const [room = ''] = path.split('/');
    for (const target of imports) {
      const [other = ''] = target.split('/');
      if (other === room) continue;
      if (!(TABLE[room] ?? []).includes(other))
        found.push(`${path} imports ${target}: ${room} may not import ${other}`);
      else if (room !== 'test' && room !== 'bench' && target !== `${other}/index.ts` && !target.endsWith('.json'))
        found.push(`${path} imports ${target}: only ${other}/index.ts is public`);
    }
  }
  return [...found, ...cycles(graph).map((cycle) => `import cycle: ${cycle.join(' → ')}`)];
}

function cycles(graph: Graph): string[][] {
  const found: string[][] = [];
  const done = new Set<string>();
  const trail: string[] = [];
  const visit = (path: string) => {
    const at = trail.indexOf(path);
    if (at >= 0) {
      found.push([...trail.slice(at), path]);
      return;
    }
    if (done.has(path)) return;
    trail.push(path);
    for (const target of graph.get(path) ?? []) visit(target);
    trail.pop();
    done.add(path);
  };
  for (const path of graph.keys()) visit(path);
  return found;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = relative(process.cwd(), fileURLToPath(new URL('../../', import.meta.url))) || '.';
  const graph = readGraph(root);
  const found = violations(graph);
  for (const line of found) process.stderr.write(`${line}\n`);
  process.stdout.write(`${graph.size} files, ${found.length} violations of the import table\n`);
  if (found.length > 0) process.exitCode = 1;
}
