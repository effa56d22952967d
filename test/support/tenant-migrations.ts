import { createHash } from 'node:crypto';
import type { TenantMigration } from '../../tenants/index.ts';

const made = (version: number, name: string, up: string, down: string | null): TenantMigration => ({
  version,
  name,
  up,
  down,
  sha256: createHash('sha256').update(up).digest('hex'),
});

/** Migrations that go wrong in ways of their own, and some that don't. */
export const SAMPLES = {
  labels: made(
    1001,
    'labels',
    `ALTER TABLE agents ADD COLUMN label text NOT NULL DEFAULT 'none'; CREATE INDEX agents_label ON agents (label);`,
    'ALTER TABLE agents DROP COLUMN label;',
  ),
  notes: made(1002, 'notes', 'CREATE TABLE notes (id bigserial PRIMARY KEY, body text);', 'DROP TABLE notes;'),
  /** fails where an agent is called "bad" */
  noBadNames: made(
    1003,
    'no_bad_names',
    `ALTER TABLE agents ADD CONSTRAINT good_name CHECK (name <> 'bad');`,
    'ALTER TABLE agents DROP CONSTRAINT good_name;',
  ),
  endless: made(1004, 'endless', 'DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$', 'SELECT 1'),
  /** passes, and takes the tenant's right to read away */
  unreadable: made(
    1005,
    'unreadable',
    `CREATE VIEW broken AS SELECT 1 / (count(*) - 3) AS x FROM agents;`,
    'DROP VIEW broken;',
  ),
  /** loses a column: there is no way back in place */
  dropTokens: made(
    1006,
    'drop_tokens',
    `ALTER TABLE tasks DROP COLUMN tokens; ALTER TABLE tasks ADD COLUMN cost numeric NOT NULL DEFAULT 0; UPDATE tasks SET cost = 1.5;`,
    null,
  ),
  /** loses a column and breaks health */
  dropAndBreak: made(
    1007,
    'drop_and_break',
    `ALTER TABLE tasks DROP COLUMN tokens; CREATE VIEW broken AS SELECT 1 / (count(*) - 3) AS x FROM agents;`,
    null,
  ),
  commits: made(1008, 'commits', 'CREATE TABLE half (x int); COMMIT;', 'DROP TABLE half;'),
  forgetful: made(1009, 'forgetful', 'CREATE TABLE one (x int); CREATE TABLE two (x int);', 'DROP TABLE one;'),
} as const;
