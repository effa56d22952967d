import type { ClientBase } from 'pg';
import { TIME_TABLES } from '../../schemas/index.ts';
import type { StorageEngine } from '../../sinks/index.ts';
import { HOUR } from '../rollups/rollups.ts';
import type { Stretch } from './count.ts';

/** Makes sure that what a stretch is counted into can be written. @param client in no transaction */
export async function makeChunks(
  client: ClientBase,
  engine: StorageEngine,
  { from, to, hoursOnly }: Stretch,
): Promise<void> {
  const hours: number[] = [];
  for (let hour = from; hour < to; hour += HOUR) hours.push(hour);
  await engine.ensureChunks(client, TIME_TABLES.rollups_hour, hours);
  await engine.ensureChunks(client, TIME_TABLES.members_hour, hours);
  if (hoursOnly) return;
  await engine.ensureChunks(client, TIME_TABLES.rollups_minute, hours);
  await engine.ensureChunks(client, TIME_TABLES.members_minute, hours);
}
