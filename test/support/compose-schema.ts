/** The part of the Compose specification (compose-spec.io) that our file uses; everything else is a mistake. */
const text = { type: 'string', minLength: 1 };
const texts = { type: 'array', items: text, minItems: 1 };
const duration = { type: 'string', pattern: '^(\\d+(h|m|s|ms|us))+$' };
const object = (properties: Record<string, unknown>, required: string[] = []) => ({
  type: 'object',
  properties,
  required,
  additionalProperties: false,
});
const named = (pattern: string, item: unknown) => ({
  type: 'object',
  patternProperties: { [pattern]: item },
  additionalProperties: false,
});

const healthcheck = {
  oneOf: [
    object({ disable: { const: true } }, ['disable']),
    object(
      {
        test: {
          type: 'array',
          items: text,
          minItems: 2,
          prefixItems: [{ enum: ['CMD', 'CMD-SHELL'] }],
        },
        interval: duration,
        timeout: duration,
        start_period: duration,
        retries: { type: 'integer', minimum: 1 },
      },
      ['test', 'interval', 'timeout', 'retries', 'start_period'],
    ),
  ],
};

const service = object(
  {
    image: { type: 'string', pattern: '^[a-z0-9./-]+:[\\w.-]+$' },
    build: text,
    command: texts,
    entrypoint: texts,
    restart: { enum: ['no', 'always', 'on-failure', 'unless-stopped'] },
    init: { type: 'boolean' },
    stop_grace_period: duration,
    shm_size: { type: 'string', pattern: '^\\d+(b|k|kb|m|mb|g|gb)$' },
    networks: texts,
    ports: { type: 'array', items: { type: 'string', pattern: '^\\S+:\\d+:\\d+$' } },
    // A bare number or boolean would be YAML's reading of it, not ours.
    environment: named('^[A-Z][A-Z0-9_]*$', { type: 'string' }),
    volumes: { type: 'array', items: { type: 'string', pattern: '^(\\./)?[\\w./-]+:/[\\w./-]+(:ro)?$' } },
    depends_on: named(
      '^[a-z]+$',
      object({ condition: { enum: ['service_started', 'service_healthy', 'service_completed_successfully'] } }, [
        'condition',
      ]),
    ),
    healthcheck,
  },
  ['image', 'restart', 'networks', 'healthcheck'],
);

export const COMPOSE_SCHEMA = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  properties: {
    name: text,
    services: named('^[a-z]+$', service),
    networks: named('^[a-z]+$', object({ internal: { type: 'boolean' } })),
    volumes: named('^[a-z]+$', object({})),
  },
  patternProperties: { '^x-': {} },
  required: ['name', 'services', 'networks', 'volumes'],
  additionalProperties: false,
};
