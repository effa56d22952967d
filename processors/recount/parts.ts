import { HOUR } from '../rollups/rollups.ts';
import { TooMuch } from './count.ts';

/** Rows went to the archive, or came back, or were withdrawn, while they were counted: count again. */
export class Moved extends Error {
  override name = 'Moved';
}

/** How often a stretch whose rows move meanwhile is counted again before the run gives up; the next one goes on there. */
const MOST_MOVES = 20;

/**
 * Does the work on a stretch of time, in halves where it is too much for the memory: of the hours first, then of the
 * items; again where rows moved meanwhile.
 * @param work may find less to do than it is given: parts of it may have been done before a part was too much
 */
export async function inParts<T>(
  items: readonly T[],
  from: number,
  to: number,
  work: (items: readonly T[], from: number, to: number) => Promise<void>,
): Promise<void> {
  for (let moves = 0; ; ) {
    try {
      await work(items, from, to);
      return;
    } catch (error) {
      if (error instanceof TooMuch) break;
      if (!(error instanceof Moved) || ++moves > MOST_MOVES) throw error;
    }
  }
  const middle = from + Math.ceil((to - from) / HOUR / 2) * HOUR;
  const half = Math.ceil(items.length / 2);
  if (middle < to) {
    await inParts(items, from, middle, work);
    await inParts(items, middle, to, work);
  } else {
    await inParts(items.slice(0, half), from, to, work);
    await inParts(items.slice(half), from, to, work);
  }
}
