import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { KafkaBroker } from '../support/kafka.ts';
import { createTestDatabase } from '../support/postgres.ts';
import { account, drain, event, records } from '../support/processors.ts';
import { requireCommand } from '../support/requirements.ts';

describe('TLS and SASL', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-tls-'));
  const openssl = requireCommand({ commands: ['openssl'], packages: ['openssl'] });
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'];
  execFileSync(
    openssl,
    ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-keyout', key, '-out', cert, ...subject],
    { stdio: 'ignore' },
  );
  const ca = readFileSync(cert, 'utf8');
  let secured: KafkaBroker;
  beforeAll(async () => {
    const pem = (text: string) => text.trim().replaceAll('\n', '\\n');
    const module = 'org.apache.kafka.common.security';
    secured = await KafkaBroker.start({
      secure: {
        'ssl.keystore.type': 'PEM',
        'ssl.keystore.certificate.chain': pem(ca),
        'ssl.keystore.key': pem(readFileSync(key, 'utf8')),
        'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
        'listener.name.sasl_ssl.plain.sasl.jaas.config': `${module}.plain.PlainLoginModule required user_alice="wonder";`,
        'listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config': `${module}.scram.ScramLoginModule required;`,
        'listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config': `${module}.scram.ScramLoginModule required;`,
      },
      format: [
        ...['--add-scram', 'SCRAM-SHA-256=[name=bob,password=builder]'],
        ...['--add-scram', 'SCRAM-SHA-512=[name=carol,password=singer]'],
      ],
    });
  }, 120_000);
  afterAll(async () => {
    await secured.dispose();
    rmSync(folder, { recursive: true, force: true });
  });

  test.each([
    ['PLAIN', 'alice', 'wonder'],
    ['SCRAM-SHA-256', 'bob', 'builder'],
    ['SCRAM-SHA-512', 'carol', 'singer'],
  ] as const)(
    '%s over TLS: appends and consumes; a wrong password and an unknown authority are refused',
    async (mechanism, username, password) => {
      const database = await createTestDatabase();
      const brokers = [secured.secureAddress];
      const security = { protocol: 'SASL_SSL' as const, sasl: { mechanism, username, password }, tls: { ca } };
      const log = await secured.open({ brokers, partitions: 1, security });
      await log.append([records(0, [event(`over-${mechanism}`)])]);
      await drain(database.pool, log);
      await log.close();
      expect(await account(database.pool)).toMatchObject({ received: 1, accepted: 1 });
      const refused = { startTimeoutMs: 0, requestTimeoutMs: 2_000, brokers };
      await expect(
        secured.open({ ...refused, security: { ...security, sasl: { mechanism, username, password: 'wrong' } } }),
      ).rejects.toMatchObject({ name: 'LogUnavailable' });
      await expect(secured.open({ ...refused, security: { ...security, tls: {} } })).rejects.toMatchObject({
        name: 'LogUnavailable',
      });
      await database.drop();
    },
  );
});
