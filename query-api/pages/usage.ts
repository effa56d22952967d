import type { Snapshot } from '../meters/snapshot.ts';
import { askIn, inWindows, listed, type PageScope, presentScope, totalOf } from './ask.ts';

/** Everything that a usage dashboard shows, from one snapshot. Quantities are decimal strings. */
export async function usagePage(snapshot: Snapshot, scope: PageScope) {
  const ask = askIn(snapshot, scope);
  const { windowSize } = scope;
  const series = {
    api_calls: await ask('api_calls', { windowSize }),
    tokens: await ask('tokens', { windowSize }),
    errors: await ask('errors', { windowSize }),
    agent_invocations: await ask('agent_invocations', { windowSize }),
    tool_calls: await ask('tool_calls', { windowSize }),
    feature_usage: await ask('feature_usage', { windowSize }),
    active_users: await ask('active_users', { windowSize }),
  };
  const list = async (meter: string, groupBy: string[], name: string) =>
    listed(await ask(meter, { groupBy }), groupBy, name);
  const users = async (size: 'DAY' | 'MONTH') =>
    (await ask('active_users', { windowSize: size })).map((row) => ({
      window_start: new Date(row.windowStart).toISOString(),
      window_end: new Date(row.windowEnd).toISOString(),
      users: row.value,
    }));
  const tenants = async (meter: string, name: string) =>
    listed(await ask(meter, { bySubject: true }), ['tenant'], name);
  return {
    ...presentScope(scope),
    totals: {
      api_calls: totalOf(await ask('api_calls')),
      tokens: totalOf(await ask('tokens')),
      errors: totalOf(await ask('errors')),
      agent_invocations: totalOf(await ask('agent_invocations')),
      tool_calls: totalOf(await ask('tool_calls')),
      feature_usage: totalOf(await ask('feature_usage')),
      active_users: totalOf(await ask('active_users')),
      concurrent_sessions: totalOf(await ask('concurrent_sessions')),
    },
    series: inWindows(series),
    active_users: { daily: await users('DAY'), monthly: await users('MONTH') },
    by_endpoint: await list('api_calls', ['endpoint', 'method'], 'api_calls'),
    by_status_code: await list('api_calls', ['status_code'], 'api_calls'),
    by_model: await list('tokens', ['model'], 'tokens'),
    by_agent_type: await list('agent_invocations', ['agent_type', 'status'], 'agent_invocations'),
    by_tool: await list('tool_calls', ['tool', 'status'], 'tool_calls'),
    by_feature: await list('feature_usage', ['feature'], 'uses'),
    ...(scope.tenants === null
      ? {
          top_tenants: {
            api_calls: await tenants('api_calls', 'api_calls'),
            tokens: await tenants('tokens', 'tokens'),
          },
        }
      : {}),
  };
}
