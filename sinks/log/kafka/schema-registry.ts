/** Confluent's wire format by a schema registry (or one that speaks its protocol: Apicurio, Karapace, Redpanda). */
import type { SchemaRegistry } from '@kafkajs/confluent-schema-registry';
import { EVENT_SCHEMA_V1, fingerprintOf } from '../../../schemas/index.ts';
import { LogUnavailable } from '../port.ts';
import type { Framing } from './framing.ts';
import type { KafkaOptions } from './options.ts';

/**
 * Registers our schema under the topic's value subject (`<topic>-value`) and writes with its id from then on.
 * @throws {LogUnavailable} when the registry does not answer or refuses the schema
 */
export async function openRegistryFraming(
  registry: NonNullable<KafkaOptions['schemaRegistry']>,
  topic: string,
): Promise<Framing> {
  // Only who uses a registry pays for loading its client.
  const library = await import('@kafkajs/confluent-schema-registry');
  const { url, username, password } = registry;
  const client: SchemaRegistry = new library.SchemaRegistry({
    host: url,
    retry: { retries: 3, initialRetryTimeInSecs: 0.1, maxRetryTimeInSecs: 2 },
    ...(username === undefined ? {} : { auth: { username, password: password ?? '' } }),
  });
  const ours = fingerprintOf(EVENT_SCHEMA_V1);
  const subject = `${topic}-value`;
  const schema = { type: library.SchemaType.AVRO, schema: JSON.stringify(EVENT_SCHEMA_V1) } as const;
  const writeId = await ask(async () => {
    try {
      return await client.getRegistryIdBySchema(subject, schema);
    } catch {
      // Not there yet; a registry that is away will say so again.
      return (await client.register(schema, { subject })).id;
    }
  });
  const known = new Map<number, boolean>([[writeId, true]]);
  return {
    writeId,
    knows: (id) => known.get(id),
    learn: async (ids) => {
      for (const id of ids) known.set(id, await ask(() => isOurs(client, id, ours)));
    },
  };
}

/** Whether the registry's schema `id` is ours in its canonical form, under whatever name it was registered. */
async function isOurs(client: SchemaRegistry, id: number, ours: Buffer): Promise<boolean> {
  try {
    const schema = await client.getSchema(id);
    const json: unknown = 'schema' in schema && typeof schema.schema === 'function' ? schema.schema() : undefined;
    return json !== undefined && fingerprintOf(JSON.parse(JSON.stringify(json))).equals(ours);
  } catch (error) {
    // No such schema, or none that is Avro: its records are dead letters.
    if (error instanceof Error && 'status' in error && error.status === 404) return false;
    if (error instanceof Error && !('status' in error) && error.name !== 'ResponseError') return false;
    throw error;
  }
}

async function ask<T>(question: () => Promise<T>): Promise<T> {
  try {
    return await question();
  } catch (error) {
    throw new LogUnavailable(`schema registry: ${error instanceof Error ? error.message : error}`, { cause: error });
  }
}
