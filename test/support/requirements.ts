/** What tests need beyond npm: found, installed where that is possible without asking, or named with the command to type. */
import { execFileSync, spawnSync } from 'node:child_process';

/** One program of the system. */
export interface Requirement {
  /** what to look for in PATH, any of */
  commands: readonly string[];
  /** Debian's packages that bring it */
  packages: readonly string[];
  /** whether what was found can do what is needed: a package may lack a part */
  suffices?(command: string): boolean;
}

/**
 * Finds a program; installs it with apt-get where this is Debian and we are root.
 * @returns the command found
 * @throws Error with the exact command to type
 */
export function requireCommand({ commands, packages, suffices = () => true }: Requirement): string {
  const found = () => commands.find((command) => spawnSync('which', [command]).status === 0 && suffices(command));
  const first = found();
  if (first !== undefined) return first;
  const install = ['install', '-y', '--no-install-recommends', ...packages];
  const isRoot = process.getuid?.() === 0 && spawnSync('which', ['apt-get']).status === 0;
  if (isRoot) {
    process.stderr.write(`tests need ${commands.join(' or ')}: apt-get ${install.join(' ')}\n`);
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    spawnSync('apt-get', ['update'], { env, stdio: 'ignore' });
    try {
      execFileSync('apt-get', install, { env, stdio: ['ignore', 'ignore', 'pipe'] });
    } catch {
      // Said below, with the command to type.
    }
  }
  const installed = found();
  if (installed === undefined)
    throw new Error(`tests need ${commands.join(' or ')}; type: sudo apt-get ${install.join(' ')}`);
  return installed;
}
