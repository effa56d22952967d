import { type BlockKey, decodeBlock } from './blocks.ts';
import { type Environment, keyOffset } from './environment.ts';

/** Blocks removed in one transaction, so that appends never wait long. */
const AT_A_TIME = 256;

/** Removes blocks that lie wholly below the committed offset, but for a tail; LMDB reuses their pages. */
export async function removeCommittedBlocks(env: Environment, partition: number): Promise<void> {
  const committed: unknown = env.state.get(['committed', partition]);
  if (typeof committed !== 'number') return;
  const below = committed - env.options.retainRecords;
  for (;;) {
    const doomed: BlockKey[] = [];
    for (const key of env.blocks.getKeys({ start: [partition, 0], end: [partition, below], limit: AT_A_TIME })) {
      const base = keyOffset(key);
      const value = env.blocks.getBinaryFast([partition, base]);
      if (value === undefined || base + decodeBlock(value).count > below) break;
      doomed.push([partition, base]);
    }
    if (doomed.length === 0) return;
    await env.root.transaction(() => {
      for (const key of doomed) env.blocks.remove(key);
    });
    if (doomed.length < AT_A_TIME) return;
  }
}
