import { describe, expect, test } from 'vitest';
import { secureUrl, wayTo } from '../../sinks/index.ts';
import { openSecretBox } from '../../tenants/index.ts';

describe('secrets at rest', () => {
  const box = openSecretBox('a secret key of at least thirty-two characters');
  test('open for their owner with their key, and for nobody else', () => {
    const sealed = box.seal('päss"word', 'tenant/1');
    expect(sealed.toString('latin1')).not.toContain('word');
    expect(box.open(sealed, 'tenant/1')).toBe('päss"word');
    expect(box.seal('päss"word', 'tenant/1').equals(sealed)).toBe(false);
    expect(() => box.open(sealed, 'tenant/2')).toThrow(expect.objectContaining({ code: 'secret_unreadable' }));
    const other = openSecretBox('another secret key of at least thirty-two characters');
    expect(() => other.open(sealed, 'tenant/1')).toThrow(/TIDEMARK_SECRET_KEY/);
  });
  test('that were changed in any byte, or cut, are refused', () => {
    const sealed = box.seal('secret', 'x');
    for (let i = 0; i < sealed.length; i++) {
      const changed = Buffer.from(sealed);
      changed[i] = (changed[i] ?? 0) ^ 1;
      expect(() => box.open(changed, 'x')).toThrow(expect.objectContaining({ code: 'secret_unreadable' }));
      expect(() => box.open(sealed.subarray(0, i), 'x')).toThrow(
        expect.objectContaining({ code: 'secret_unreadable' }),
      );
    }
  });
});

describe('TLS to the database', () => {
  test.each(['127.0.0.1', 'localhost', '[::1]'])('none is asked for on this machine (%s)', (host) => {
    expect(wayTo(`postgres://u:p@${host}:5432/d`).ssl).toBeUndefined();
    expect(secureUrl(`postgres://u:p@${host}:5432/d`, 'required')).toBe(`postgres://u:p@${host}:5432/d`);
  });
  test('elsewhere it is 1.3 with a checked certificate, by default', () => {
    expect(wayTo('postgres://u:p@db.example.com/d').ssl).toEqual({ minVersion: 'TLSv1.3', rejectUnauthorized: true });
    expect(wayTo('postgres://u:p@10.0.0.5/d?sslmode=require').ssl).toEqual({
      minVersion: 'TLSv1.3',
      rejectUnauthorized: false,
    });
    expect(wayTo('postgres://u:p@h/d?sslmode=require').connectionString).toBe('postgres://u:p@h/d');
  });
  test.each(['sslmode=disable', 'sslmode=prefer', 'ssl_min_protocol_version=TLSv1.2'])(
    'a URL with %s is refused, its password not repeated, unless the setting says so',
    (parameter) => {
      const url = `postgres://u:hunter2@db.example.com/d?${parameter}`;
      expect(() => secureUrl(url, 'required')).toThrow(
        expect.objectContaining({ code: 'invalid_setting', message: expect.not.stringContaining('hunter2') }),
      );
      expect(secureUrl(url, 'optional')).toContain(parameter);
    },
  );
  test('optional and silent is none', () => {
    expect(wayTo(secureUrl('postgres://u:p@db.example.com/d', 'optional')).ssl).toBe(false);
  });
});
