/** Compression of Kafka's record batches: bits 0–2 of a batch's attributes. */
import { promisify } from 'node:util';
import { constants, gunzip, gzip, zstdCompress, zstdDecompress } from 'node:zlib';
import { compressFrame, decompressFrame } from 'lz4-napi';

export const COMPRESSIONS = ['none', 'gzip', 'lz4', 'zstd'] as const;
export type Compression = (typeof COMPRESSIONS)[number];

/** Kafka's numbers; 2 is snappy, which we neither write nor read. */
export const COMPRESSION_BITS: Record<Compression, number> = { none: 0, gzip: 1, lz4: 3, zstd: 4 };

/** Most bytes that a batch may unpack to: zstd can make that of 2 KB, and memory is bounded (P13). */
const MOST_UNPACKED = 64 << 20;

const gzipped = promisify(gzip);
const gunzipped = promisify(gunzip);
const zstded = promisify(zstdCompress);
const unzstded = promisify(zstdDecompress);

/** Compresses the records of a batch, on a thread of libuv's or the codec's. */
export async function compress(records: Buffer, as: Compression): Promise<Buffer> {
  switch (as) {
    case 'none':
      return records;
    case 'gzip':
      return gzipped(records, { level: 1 });
    case 'lz4':
      return compressFrame(records);
    case 'zstd':
      return zstded(records, { params: { [constants.ZSTD_c_compressionLevel]: 1 } });
  }
}

/** @returns undefined when the codec is unknown, the bytes are damaged, or there would be too many of them */
export async function decompress(bytes: Buffer, attributes: number): Promise<Buffer | undefined> {
  try {
    switch (attributes & 7) {
      case COMPRESSION_BITS.none:
        return bytes;
      case COMPRESSION_BITS.gzip:
        return await gunzipped(bytes, { maxOutputLength: MOST_UNPACKED });
      case COMPRESSION_BITS.lz4:
        return mostUnpacked(bytes) > MOST_UNPACKED ? undefined : await decompressFrame(bytes);
      case COMPRESSION_BITS.zstd:
        return await unzstded(bytes, { maxOutputLength: MOST_UNPACKED });
      default:
        return undefined;
    }
  } catch {
    return undefined;
  }
}

/**
 * Most bytes that an LZ4 frame may unpack to, by the sizes of its blocks, for its codec takes no limit (LZ4 Frame Format
 * 1.6.4, LZ4 Block Format: a byte tells of at most 255). Infinity where it is no such frame.
 */
function mostUnpacked(frame: Buffer): number {
  if (frame.length < 7 || frame.readUInt32LE(0) !== 0x184d2204) return Number.POSITIVE_INFINITY;
  const [flags, descriptor] = [frame.readUInt8(4), frame.readUInt8(5)];
  const blockBytes = 1 << (8 + 2 * ((descriptor >> 4) & 7));
  const checksum = flags & 0x10 ? 4 : 0;
  let at = 7 + (flags & 0x08 ? 8 : 0) + (flags & 0x01 ? 4 : 0);
  let most = 0;
  while (at + 4 <= frame.length) {
    const size = frame.readUInt32LE(at) & 0x7fffffff;
    if (size === 0) break;
    most += Math.min(blockBytes, size * 255);
    at += 4 + size + checksum;
  }
  return most;
}
