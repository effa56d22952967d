/** Compression of Kafka's record batches: bits 0–2 of a batch's attributes. */
import { promisify } from 'node:util';
import { constants, gunzip, gzip, zstdCompress, zstdDecompress } from 'node:zlib';
import { compressFrame, decompressFrame } from 'lz4-napi';

export const COMPRESSIONS = ['none', 'gzip', 'lz4', 'zstd'] as const;
export type Compression = (typeof COMPRESSIONS)[number];

/** Kafka's numbers; 2 is snappy, which we neither write nor read. */
export const COMPRESSION_BITS: Record<Compression, number> = { none: 0, gzip: 1, lz4: 3, zstd: 4 };

/** Most bytes that a batch may unpack to: a batch is at most about 1 MB, and memory is bounded (P13). */
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
        return await decompressFrame(bytes);
      case COMPRESSION_BITS.zstd:
        return await unzstded(bytes, { maxOutputLength: MOST_UNPACKED });
      default:
        return undefined;
    }
  } catch {
    return undefined;
  }
}
