import type { ClientBase } from 'pg';

/**
 * Makes every owner of a partition forget what it holds in memory, in the caller's transaction: no batch that was
 * prepared with it commits afterwards. For what is taken away behind the owners' backs.
 */
export async function forgetInMemory(client: ClientBase): Promise<void> {
  await client.query('UPDATE tidemark.log_offsets SET generation = generation + 1');
}
