import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto';
import { TidemarkError } from '../../schemas/index.ts';

/** Encrypts secrets at rest: AES-256-GCM (NIST SP 800-38D) with a key from the settings. */
export interface SecretBox {
  /** @param owner what the secret belongs to, such as `tenant_schemas/<uuid>`: opening it for another owner fails */
  seal(text: string, owner: string): Buffer;
  /** @throws TidemarkError `secret_unreadable`: another key, another owner, or changed bytes */
  open(sealed: Buffer, owner: string): string;
}

const VERSION = 1;
const NONCE = 12;
const TAG = 16;
const KEY_ID = 4;

/**
 * Sealed form: version (1 byte), key id (4), nonce (12), ciphertext, tag (16). The key id tells a wrong key from damage.
 * @param secretKey any string of at least 32 characters
 */
export function openSecretBox(secretKey: string): SecretBox {
  const key = Buffer.from(hkdfSync('sha256', secretKey, 'tidemark', 'secrets at rest', 32));
  const keyId = createHash('sha256').update(key).digest().subarray(0, KEY_ID);
  return {
    seal: (text, owner) => {
      const nonce = randomBytes(NONCE);
      const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG }).setAAD(Buffer.from(owner));
      const body = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()]);
      return Buffer.concat([Buffer.of(VERSION), keyId, nonce, body, cipher.getAuthTag()]);
    },
    open: (sealed, owner) => {
      const start = 1 + KEY_ID + NONCE;
      if (sealed.length < start + TAG || sealed[0] !== VERSION)
        throw new TidemarkError('secret_unreadable', 'the stored secret is damaged');
      if (!sealed.subarray(1, 1 + KEY_ID).equals(keyId))
        throw new TidemarkError('secret_unreadable', 'the stored secret was made with another TIDEMARK_SECRET_KEY');
      try {
        const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(1 + KEY_ID, start), {
          authTagLength: TAG,
        })
          .setAAD(Buffer.from(owner))
          .setAuthTag(sealed.subarray(-TAG));
        return Buffer.concat([decipher.update(sealed.subarray(start, -TAG)), decipher.final()]).toString('utf8');
      } catch (cause) {
        throw new TidemarkError('secret_unreadable', 'the stored secret is damaged, or another’s', { cause });
      }
    },
  };
}
