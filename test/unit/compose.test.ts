import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { ROLES, readSettings, settingsPage } from '../../schemas/index.ts';
import { COMPOSE_SCHEMA } from '../support/compose-schema.ts';

interface Service {
  image: string;
  build?: string;
  environment?: Record<string, string>;
  ports?: string[];
  volumes?: string[];
  networks: string[];
  depends_on?: Record<string, { condition: string }>;
  healthcheck: { disable?: true; test?: string[] };
}
interface Compose {
  services: Record<string, Service>;
  networks: Record<string, { internal?: boolean }>;
  volumes: Record<string, unknown>;
}

const root = new URL('../../', import.meta.url);
const read = (name: string) => readFileSync(new URL(name, root), 'utf8');
const source = read('docker-compose.yml');
const compose: Compose = parse(source, { merge: true });
const services = Object.entries(compose.services);
const ours = services.filter(([, service]) => service.build !== undefined);
const VARIABLE = /\$\{([A-Z0-9_]+)(?::([-?])([^}]*))?\}/g;

/** What `docker compose` makes of a value. @throws Error where a required variable is missing */
function interpolate(value: string, env: Readonly<Record<string, string>>): string {
  return value.replaceAll(VARIABLE, (_, name: string, kind: string | undefined, rest: string | undefined) => {
    const given = env[name];
    if (given) return given;
    if (kind === '?') throw new Error(rest);
    if (kind === undefined) throw new Error(`${name} has neither a default nor a message`);
    return rest ?? '';
  });
}

const SECRETS = Object.fromEntries(
  [
    'TIDEMARK_ADMIN_KEY',
    'TIDEMARK_SECRET_KEY',
    'POSTGRES_PASSWORD',
    'METABASE_DB_PASSWORD',
    'S3_ACCESS_KEY',
    'S3_SECRET_KEY',
  ].map((name) => [name, `${name.toLowerCase()}-0123456789abcdef0123456789abcdef`]),
);

describe('docker-compose.yml', () => {
  test('is what the Compose specification allows', () => {
    const validate = new Ajv2020({ allErrors: true, strictTypes: false, strictTuples: false }).compile(COMPOSE_SCHEMA);
    validate(compose);
    expect(validate.errors).toBeNull();
  });

  test('every name that it refers to is there', () => {
    for (const [name, service] of services) {
      for (const [other, { condition }] of Object.entries(service.depends_on ?? {})) {
        const target = compose.services[other];
        expect(target, `${name} depends on ${other}`).toBeDefined();
        if (condition === 'service_healthy') expect(target?.healthcheck.test, `${other} has a check`).toBeDefined();
        if (condition === 'service_completed_successfully') expect(target?.healthcheck.disable).toBe(true);
      }
      for (const network of service.networks) expect(compose.networks[network], network).toBeDefined();
      for (const volume of service.volumes ?? []) {
        const [from = ''] = volume.split(':');
        if (from.startsWith('./')) accessSync(new URL(from, root), constants.X_OK);
        else expect(compose.volumes, volume).toHaveProperty(from);
      }
    }
    const used = services.flatMap(([, service]) => (service.volumes ?? []).map((one) => one.split(':')[0]));
    for (const volume of Object.keys(compose.volumes)) expect(used).toContain(volume);
  });

  test('whatever runs on is checked, keeps its data in a volume, and has a fixed version', () => {
    for (const [name, service] of services) {
      if (name !== 'bucket') expect(service.healthcheck.test, name).toBeDefined();
      expect(service.image).not.toMatch(/:(latest|main|master)$/);
    }
    for (const name of ['kafka', 'timescaledb', 'objects'])
      expect(compose.services[name]?.volumes?.length).toBeGreaterThan(0);
  });

  test('only what people use is reachable from outside, and only from this machine unless told otherwise', () => {
    expect(compose.networks.inside?.internal).toBe(true);
    const open = services.filter(([, service]) => service.ports !== undefined);
    expect(open.map(([name]) => name).sort()).toEqual(['ingest', 'metabase', 'query']);
    for (const [, service] of open)
      for (const port of service.ports ?? []) {
        expect(service.networks).toContain('outside');
        expect(interpolate(port, {})).toMatch(/^127\.0\.0\.1:/);
      }
  });

  test('no password is written in it: each is a variable that must be set, with a message', () => {
    for (const [name, service] of services)
      for (const [variable, value] of Object.entries(service.environment ?? {})) {
        if (/PASS|SECRET|TOKEN|ACCESS_KEY|ADMIN_KEY/.test(variable))
          expect(value, `${name} ${variable}`).toMatch(/^\$\{[A-Z0-9_]+:\?[^}]+\}$/);
        // A password within a URL.
        const inUrl = /:\/\/[^:/@]*:(.+)@/.exec(value)?.[1];
        if (inUrl !== undefined) expect(inUrl, `${name} ${variable}`).toMatch(/^\$\{[A-Z0-9_]+:\?[^}]+\}$/);
        for (const missing of [...value.matchAll(VARIABLE)].filter((found) => found[2] === '?'))
          expect(() => interpolate(value, {}), missing[1]).toThrow(/in \.env/);
      }
    expect([...source.matchAll(VARIABLE)].filter((found) => found[2] === '?').map((found) => found[1])).toEqual(
      expect.arrayContaining(Object.keys(SECRETS)),
    );
  });

  test('every variable of ours is a setting, and the settings are sound', () => {
    const known = new Set([...settingsPage().matchAll(/^\| `([A-Z0-9_]+)` /gm)].map((found) => found[1]));
    for (const [name, service] of ours) {
      const env = Object.fromEntries(
        Object.entries(service.environment ?? {}).map(([variable, value]) => [variable, interpolate(value, SECRETS)]),
      );
      for (const variable of Object.keys(env))
        if (!variable.startsWith('AWS_')) expect(known, `${name}: ${variable}`).toContain(variable);
      const settings = readSettings(env);
      expect([...settings.ROLES]).toEqual([name]);
      expect(settings.KAFKA_BROKERS).toEqual(['kafka:9092']);
      expect(new URL(settings.DATABASE_URL ?? '').hostname).toBe('timescaledb');
    }
  });

  test('the roles are split: each runs, once', () => {
    expect(ours.map(([, service]) => service.environment?.ROLES).sort()).toEqual([...ROLES].sort());
  });
});

describe('Dockerfile', () => {
  const lines = read('Dockerfile').split('\n');
  test('copies what is there, runs as nobody special, and holds no secret', () => {
    for (const line of lines.filter((one) => one.startsWith('COPY ') && !one.includes('--from')))
      for (const path of line.split(' ').slice(1, -1)) expect(existsSync(new URL(path, root)), path).toBe(true);
    expect(lines.findLast((line) => line.startsWith('USER '))).toBe('USER node');
    expect(lines.join('\n')).not.toMatch(/^(ARG|ENV).*(PASS|SECRET|TOKEN|KEY)/m);
    const ignored = read('.dockerignore').split('\n');
    for (const path of ['.git', '.env', 'data', 'node_modules']) expect(ignored).toContain(path);
  });
  test('its Node is the one that package.json pins', () => {
    const major = /"node": "\^(\d+)\./.exec(read('package.json'))?.[1];
    for (const line of lines.filter((one) => one.startsWith('FROM '))) expect(line).toContain(`node:${major}-`);
  });
});
