import type { ClientBase } from 'pg';
import { tenantIdOf } from '../schema/names.ts';

/** A schema's structure as sorted lines, the same for every tenant that has it: names that carry the UUID are replaced. */
export type Structure = readonly string[];

/** What a change did. */
export interface StructureDiff {
  added: string[];
  removed: string[];
}

/**
 * Everything that the schema's owner owns. Views over shared tables are the platform's: they have another owner.
 * No condition may look at a definition: PostgreSQL would then make the definitions of all schemas first, and lock each
 * relation for that, other tenants' too.
 */
const READ = `
  WITH own AS (SELECT c.* FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relowner = n.nspowner)
    SELECT format('%s %s%s%s', CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
        WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' END, relname,
      CASE WHEN relrowsecurity THEN ' row security' END, CASE WHEN relkind IN ('v', 'm') THEN ' as ' || pg_get_viewdef(oid) END) AS line
    FROM own WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    UNION ALL
    SELECT format('column %s.%s %s%s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN ' not null' END,
      CASE WHEN a.attidentity <> '' THEN ' identity ' || a.attidentity::text WHEN a.attgenerated <> '' THEN ' generated' END, ' default ' || pg_get_expr(d.adbin, d.adrelid))
    FROM own AS c JOIN pg_attribute AS a ON a.attrelid = c.oid LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    -- NOT NULL is said with its column; PostgreSQL 18 counts it as a constraint too.
    SELECT format('constraint %s on %s %s', k.conname, coalesce(c.relname, '-'), pg_get_constraintdef(k.oid))
    FROM pg_constraint AS k JOIN own AS c ON c.oid = k.conrelid WHERE k.contype <> 'n'
    UNION ALL
    SELECT 'index ' || pg_get_indexdef(i.indexrelid) || CASE WHEN NOT i.indisvalid THEN ' invalid' ELSE '' END FROM pg_index AS i JOIN own AS c ON c.oid = i.indrelid
    UNION ALL
    SELECT 'trigger ' || pg_get_triggerdef(t.oid) FROM pg_trigger AS t JOIN own AS c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
    UNION ALL
    SELECT format('policy %s on %s for %s using %s check %s', p.polname, c.relname, p.polcmd, pg_get_expr(p.polqual, c.oid), pg_get_expr(p.polwithcheck, c.oid))
    FROM pg_policy AS p JOIN own AS c ON c.oid = p.polrelid
    UNION ALL
    SELECT CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) ELSE 'aggregate ' || p.oid::regprocedure END
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = $1
    UNION ALL
    SELECT format('type %s %s', t.typname, coalesce((SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid), t.typtype::text))
    FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace WHERE n.nspname = $1 AND t.typtype IN ('e', 'd', 'r')
    UNION ALL
    SELECT format('grant on %s %s to %s', c.relname, string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type), coalesce(r.rolname, 'PUBLIC'))
    FROM own AS c, aclexplode(c.relacl) AS g LEFT JOIN pg_roles AS r ON r.oid = g.grantee WHERE c.relkind <> 'i' AND g.privilege_type <> 'MAINTAIN' GROUP BY c.relname, r.rolname`;

/**
 * Reads a schema's structure: relations, columns, constraints, indexes, triggers, policies, functions, types, grants.
 * @param schema of a tenant, or one beside it
 */
export async function readStructure(client: Pick<ClientBase, 'query'>, schema: string): Promise<Structure> {
  const { rows } = await client.query<{ line: string | null }>(READ, [schema]);
  const own = /^tenant_[0-9a-f]{32}/.exec(schema)?.[0] ?? schema;
  const id = tenantIdOf(own);
  const named = (line: string) => {
    const plain = line.replaceAll(schema, '{schema}').replaceAll(own, '{schema}').replaceAll(/\s+/g, ' ');
    return id === undefined ? plain : plain.replaceAll(id, '{tenant}');
  };
  return rows.flatMap(({ line }) => (line === null ? [] : [named(line)])).sort();
}

export function diffStructures(before: Structure, after: Structure): StructureDiff {
  const had = new Set(before);
  const has = new Set(after);
  return { added: after.filter((line) => !had.has(line)), removed: before.filter((line) => !has.has(line)) };
}

export const sameDiff = (a: StructureDiff, b: StructureDiff): boolean =>
  a.added.join('\n') === b.added.join('\n') && a.removed.join('\n') === b.removed.join('\n');

/** What a change takes away that an undo could not bring back: tables and columns with what was in them. */
export const lossesOf = (diff: StructureDiff): string[] => {
  const kept = new Set(diff.added.map(nameOf));
  return diff.removed.filter((line) => /^(table|column) /.test(line) && !kept.has(nameOf(line)));
};
/** Kind and name: `column agents.name`. A changed type keeps its name. */
const nameOf = (line: string): string => line.split(' ', 2).join(' ');
