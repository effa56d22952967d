import type { QueryResult, QueryResultRow } from 'pg';

/** A pool, or one client in its transaction. */
export interface Queryable {
  query<R extends QueryResultRow>(text: string, values?: unknown[]): Promise<QueryResult<R>>;
}
