import type { ClientBase } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';

/** Bytes handed to the socket at a time, so that one COPY never holds up the event loop. */
const CHUNK = 1 << 18;

/**
 * Sends a finished binary COPY.
 * @param sql `COPY table (columns) FROM STDIN (FORMAT binary)`, a constant
 * @param payload what `BinaryCopy.finish` returned; must not change until this resolves
 * @throws DatabaseError when PostgreSQL refuses a row: the transaction is then aborted
 */
export async function copyInto(client: ClientBase, sql: string, payload: Buffer): Promise<void> {
  const stream = client.query(copyFrom(sql, { highWaterMark: CHUNK * 4 }));
  await new Promise<void>((resolve, reject) => {
    stream.once('error', reject);
    stream.once('finish', resolve);
    let at = 0;
    const write = () => {
      while (at < payload.length) {
        const next = Math.min(at + CHUNK, payload.length);
        const more = stream.write(payload.subarray(at, next));
        at = next;
        if (!more && at < payload.length) {
          stream.once('drain', write);
          return;
        }
      }
      stream.end();
    };
    write();
  });
}
