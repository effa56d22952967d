import { randomUUID } from 'node:crypto';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createTransport } from 'nodemailer';

export interface Email {
  to: string;
  subject: string;
  text: string;
  /** names this message for good: sent again after a crash it is recognisable as the same (RFC 5322 Message-ID) */
  id: string;
}

export interface Mailer {
  readonly name: 'smtp' | 'files';
  /** Resolves once the server has taken the message, or its file is whole. @throws Error of the server or the way to it */
  send(email: Email): Promise<void>;
  close(): void;
}

const TIMEOUT_MS = 10_000;

/** Mail over SMTP (RFC 5321), or as `.eml` files in a folder where there is no SMTP server. */
export function openMailer(to: { smtpUrl: string } | { folder: string }, from: string): Mailer {
  const message = (email: Email) => ({
    from,
    to: email.to,
    subject: email.subject,
    text: email.text,
    messageId: `<${email.id}@tidemark>`,
    // An address book or a template is none of a message's business: nothing is read from disk or net.
    disableFileAccess: true,
    disableUrlAccess: true,
  });
  if ('smtpUrl' in to) {
    const url = new URL(to.smtpUrl);
    for (const name of ['connectionTimeout', 'greetingTimeout', 'socketTimeout'])
      if (!url.searchParams.has(name)) url.searchParams.set(name, String(TIMEOUT_MS));
    const transport = createTransport(url.toString());
    return {
      name: 'smtp',
      send: async (email) => {
        await transport.sendMail(message(email));
      },
      close: () => transport.close(),
    };
  }
  const transport = createTransport({ streamTransport: true, buffer: true, newline: 'windows' });
  return {
    name: 'files',
    send: async (email) => {
      const { message: bytes } = await transport.sendMail(message(email));
      if (!Buffer.isBuffer(bytes)) throw new Error('the message is no buffer');
      mkdirSync(to.folder, { recursive: true });
      const whole = join(to.folder, `${email.id.replaceAll(/[^\w.-]/g, '_')}.eml`);
      const part = `${whole}.${randomUUID()}.part`;
      writeFileSync(part, bytes, { mode: 0o600 });
      renameSync(part, whole);
    },
    close: () => undefined,
  };
}
