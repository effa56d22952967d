/**
 * The catalogue of every error that Tidemark reports: to callers (RFC 9457 problem+json), to operators, and in dead letters.
 * Nobody matches on message text: `code` is the contract.
 */
export interface ErrorKind {
  /** HTTP status when it answers a whole request */
  status: number;
  /** the same request may succeed later */
  retryable: boolean;
  title: string;
  hint: string;
}

const kind = (status: number, retryable: boolean, title: string, hint: string): ErrorKind => ({
  status,
  retryable,
  title,
  hint,
});

export const ERRORS = {
  // The request as a whole
  unauthorized: kind(
    401,
    false,
    'Not authenticated',
    'Send "Authorization: Bearer <key>" with a key that is not revoked.',
  ),
  forbidden: kind(403, false, 'Not allowed', 'The key lacks the scope that this route needs.'),
  not_found: kind(404, false, 'Not found', 'Check the path and the reference in it.'),
  method_not_allowed: kind(405, false, 'Method not allowed', 'See /docs for the methods of this path.'),
  conflict: kind(409, false, 'Conflict', 'Something of that name exists already.'),
  unsupported_media_type: kind(415, false, 'Unsupported media type', 'See /docs for the content types of this route.'),
  unsupported_encoding: kind(415, false, 'Unsupported content encoding', 'Send the body plain or with gzip.'),
  body_too_large: kind(413, false, 'Body too large', 'At most 5 MB as sent, 50 MB unpacked and 10,000 events.'),
  invalid_json: kind(400, false, 'Not JSON', 'Send JSON as RFC 8259 defines it, in UTF-8.'),
  invalid_body: kind(400, false, 'Invalid body', 'Compare the body with the schema in /docs.'),
  invalid_parameter: kind(400, false, 'Invalid parameter', 'Compare the parameter with the schema in /docs.'),
  invalid_cursor: kind(400, false, 'Invalid cursor', 'Use the cursor of the previous page unchanged.'),
  invalid_range: kind(400, false, 'Invalid time range', '`from` must be before `to`, both at whole minutes.'),
  all_rejected: kind(400, false, 'Every event was rejected', 'See the list of rejected events.'),
  log_unavailable: kind(503, true, 'Event log unavailable', 'Nothing was accepted: send the same request again.'),
  overloaded: kind(503, true, 'Processing lags behind', 'Nothing was accepted: send the same request again.'),
  database_unavailable: kind(503, true, 'Database unavailable', 'Send the same request again.'),
  shutting_down: kind(503, true, 'Shutting down', 'Send the same request again.'),
  internal: kind(500, true, 'Internal error', 'The log has the details under the request id.'),

  // One event of a batch
  invalid_event: kind(400, false, 'Not an event', 'An event is a JSON object.'),
  missing_field: kind(400, false, 'Required field missing', 'Add the field.'),
  invalid_field: kind(400, false, 'Invalid field', 'The field has the wrong type or form.'),
  field_too_long: kind(400, false, 'Field too long', 'Shorten the field to its limit.'),
  forbidden_key: kind(400, false, 'Forbidden key', '`__proto__`, `constructor` and `prototype` are no names.'),
  invalid_character: kind(
    400,
    false,
    'Invalid character',
    'NUL, lone surrogates, invalid UTF-8 and control characters in identifiers are refused.',
  ),
  too_deep: kind(400, false, 'Nested too deeply', 'At most 16 levels.'),
  event_too_large: kind(400, false, 'Event too large', 'At most 64 KB an event.'),
  number_out_of_range: kind(400, false, 'Number out of range', 'Below 1e20, with at most 18 decimals.'),
  invalid_timestamp: kind(400, false, 'Invalid timestamp', 'ISO 8601 with a zone, as 2026-01-26T21:30:45.123Z.'),
  too_old: kind(
    400,
    false,
    'Event too old',
    'Older than the idempotency window; an import sends "Tidemark-Backfill: true" with an admin key.',
  ),
  too_new: kind(400, false, 'Event in the future', 'More than 5 minutes ahead: check the clock of the sender.'),
  unknown_tenant: kind(400, false, 'Unknown tenant', 'Create the tenant first, or set UNKNOWN_TENANTS=create.'),
  wrong_tenant: kind(400, false, "Another tenant's event", "A tenant's key sends its own events only."),
  rate_limited: kind(429, true, 'Rate limit', 'Send these events again after Retry-After seconds.'),
  batch_rejected: kind(400, true, 'Rejected with its batch', 'handling=strict: another event of the batch is wrong.'),

  // A record on the log (dead letters)
  unknown_schema: kind(400, false, 'Unknown schema', 'The Avro fingerprint is none of the published versions.'),
  undecodable: kind(400, false, 'Undecodable record', 'The bytes are no Avro single-object encoded event.'),
  inapplicable: kind(400, false, 'Refused by the database', 'See the detail for the SQLSTATE.'),

  // Reading
  unknown_meter: kind(404, false, 'Unknown meter', 'GET /api/v1/meters lists them.'),
  unknown_group: kind(400, false, 'Unknown group-by property', "Use a property of the meter's groupBy."),
  window_too_fine: kind(
    400,
    false,
    'Window finer than the data kept',
    'Ask for hours or longer windows, at whole hours.',
  ),
  too_many_streams: kind(503, true, 'Too many streams', 'Come back after Retry-After seconds, or ask by query.'),
  quantile_without_sketch: kind(400, false, 'A quantile of a meter that has none', 'Ask a PERCENTILE meter.'),

  // Meters
  invalid_meter: kind(400, false, 'Invalid meter', 'Compare the definition with docs/meters.md.'),
  invalid_json_path: kind(
    400,
    false,
    'JSONPath outside the subset',
    "Names only: `$.tokens`, `$.usage.input_tokens`, `$['a.b']`; no wildcards, indexes, filters or functions.",
  ),
  value_property_missing: kind(
    400,
    false,
    'Value property missing',
    'Every aggregation but COUNT needs valueProperty, a JSONPath into the data.',
  ),
  value_property_unexpected: kind(
    400,
    false,
    'Value property on COUNT',
    'COUNT counts events: leave valueProperty out.',
  ),
  quantile_unexpected: kind(400, false, 'Quantile without PERCENTILE', 'Only a PERCENTILE meter has quantiles.'),
  invalid_filter: kind(
    400,
    false,
    'Invalid filter',
    'A filter is {property, op, value}; op is one of eq, ne, in, gt, gte, lt, lte, exists.',
  ),
  slug_in_use: kind(409, false, 'Slug in use', 'Another meter has this slug: choose a new one.'),
  meter_in_use: kind(
    409,
    false,
    'The meaning of a meter in use can not change',
    'Its numbers may have been read or billed: create a meter with a new slug.',
  ),
  already_replaced: kind(
    409,
    false,
    'Replaced already',
    'An event is replaced once: a further correction replaces the correcting event.',
  ),
  ambiguous_event: kind(
    409,
    false,
    'Several events have this id',
    'Name whose event it is: ?subject=, and ?source= for a CloudEvent.',
  ),
  event_archived: kind(
    409,
    false,
    'Raw events are archived',
    'Its rollups can not be counted anew from what is left in the database: recall its day first (POST /api/v1/archives/{day}/recall).',
  ),
  meter_builtin: kind(409, false, 'Built-in meter', 'Built-in meters can not be changed or deleted: create your own.'),

  // Tenants, migrations, pools
  invalid_migration: kind(400, false, 'Invalid tenant migration', 'Mend the file, then plan again.'),
  migration_order: kind(
    409,
    false,
    'A tenant has later migrations but lacks an earlier one',
    'Give the new migration a version after all applied ones.',
  ),
  migration_irreversible: kind(409, false, 'No way back', 'Restore from a backup, or migrate forward.'),
  migration_structure: kind(
    409,
    false,
    'The structure is not what was planned',
    "Compare the tenant's schema with the plan: GET /api/v1/health/schemas shows the drift.",
  ),
  migration_unhealthy: kind(
    409,
    false,
    'Unhealthy after the migration',
    'The tenant was taken back; mend the migration.',
  ),
  already_there: kind(409, false, 'Already there', 'The tenant lives on that shard.'),
  elsewhere: kind(409, false, 'The tenant lives on another shard', 'Move it to the shard main first.'),
  nothing_to_migrate: kind(409, false, 'Nothing to migrate', 'GET /api/v1/migrations shows what is applied.'),
  pool_timeout: kind(503, true, 'No connection came free', 'All connections of this tenant are in use: try again.'),
  pool_queue_full: kind(503, true, 'Too many wait for a connection', 'Slow down, then send the same request again.'),
  tenant_suspended: kind(403, false, 'The tenant is suspended', 'Resume it: POST /api/v1/tenants/{ref}/resume.'),
  tenant_deleted: kind(403, false, 'The tenant is deleted', 'Within its grace period it can be resumed.'),
  tenant_archived: kind(403, false, 'The tenant is archived', 'Bring it back: POST /api/v1/tenants/{ref}/unarchive.'),
  tenant_not_ready: kind(409, true, 'The tenant is not ready', 'Wait until its provisioning has ended.'),
  tenant_unprovisioned: kind(
    409,
    false,
    'The tenant has no schema',
    'Only events have made it known: POST /api/v1/tenants with its customer_id provisions it.',
  ),
  tenant_on_shard: kind(
    409,
    false,
    'The tenant lives on another shard',
    'Move it first: tidemark shards move <ref> main.',
  ),
  idempotency_mismatch: kind(
    422,
    false,
    'The Idempotency-Key was used for another request',
    'Use a new key for a new request; repeat the old one unchanged.',
  ),
  provisioning_failed: kind(
    503,
    true,
    'Provisioning failed',
    'Everything was undone: the same request may be sent again.',
  ),
  secret_unreadable: kind(
    500,
    false,
    'A stored secret can not be read',
    'Set TIDEMARK_SECRET_KEY to the key that it was made with, or rotate the secret.',
  ),
  unknown_backup: kind(404, false, 'Unknown backup', 'GET /api/v1/tenants/{ref}/backups lists them.'),
  backup_damaged: kind(
    500,
    false,
    'The backup does not match its manifest',
    'Nothing was restored: take another backup.',
  ),

  // Billing
  invalid_charge: kind(400, false, 'Invalid charge', 'The detail names the place; docs/billing.md has every field.'),
  invalid_currency: kind(400, false, 'Invalid currency', 'An ISO 4217 code with a minor unit, as USD, JPY or KWD.'),
  negative_quantity: kind(400, false, 'Negative quantity', 'Quantities and event counts are 0 or more.'),
  unknown_plan: kind(404, false, 'Unknown plan', 'GET /api/v1/plans lists them.'),
  period_closed: kind(409, false, 'The period is closed', 'Take a time after the last closed period.'),
  invalid_subscription: kind(400, false, 'Invalid subscription', 'The detail names what does not fit.'),
  statement_void: kind(409, false, 'The statement is void already', 'See its `void` member.'),
  statement_adjusted: kind(
    409,
    false,
    'A later statement adjusts it',
    'Void the later statement first: its adjustments refer to this one.',
  ),
  meter_incomplete: kind(409, true, 'The meter does not know the past yet', 'Its backfill runs: try again later.'),
  unbillable_meter: kind(
    400,
    false,
    'Meter without an exact total',
    'Percentiles are estimates, averages do not add up: bill a COUNT, SUM, MIN, MAX, LATEST or UNIQUE_COUNT.',
  ),

  // Archive and jobs
  unknown_job: kind(404, false, 'Unknown job', 'See docs/operations.md for the jobs.'),
  archive_frozen: kind(
    409,
    true,
    'The archive of these days is frozen',
    'POST /api/v1/archives/{day}/restore for each day, wait until GET /api/v1/archives says `restored`, and ask again.',
  ),
  archive_damaged: kind(
    500,
    false,
    'An archive does not match its manifest',
    'Nothing was dropped. The detail names the file; `tidemark archive verify` checks all of them.',
  ),
  archive_conflict: kind(
    409,
    false,
    'The archive holds something else',
    "Another database's archive, or another archiver, is at this place: give each its own bucket or S3_PREFIX.",
  ),
  archive_unavailable: kind(503, true, 'Object store unavailable', 'Nothing was changed: try again.'),
  archive_busy: kind(409, true, 'The day is being worked on', 'Another archiver has it: try again later.'),

  // Operators
  invalid_setting: kind(500, false, 'Invalid setting', 'See the settings table in the manual.'),
  migration_changed: kind(
    500,
    false,
    'An applied migration was changed',
    'Restore the file and put the change into a new one.',
  ),
  migration_missing: kind(
    500,
    false,
    'An applied migration is missing',
    'This build is older than the database: use the newer one.',
  ),
  data_in_use: kind(500, false, 'Data folder in use', 'Another Tidemark runs on this data folder.'),
} as const satisfies Record<string, ErrorKind>;

export type ErrorCode = keyof typeof ERRORS;
export const isErrorCode = (code: string): code is ErrorCode => Object.hasOwn(ERRORS, code);

/** One rejected event of a batch. */
export interface Rejection {
  /** position in the batch, from 0 */
  index: number;
  code: ErrorCode;
  field?: string;
  detail: string;
}

/** RFC 9457 problem details. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: ErrorCode;
  request_id: string;
  [extension: string]: unknown;
}

/** An error of the catalogue, on its way to whoever caused it. */
export class TidemarkError extends Error {
  override name = 'TidemarkError';
  readonly code: ErrorCode;
  /** members that the problem body gets beside the standard ones */
  readonly extensions: Record<string, unknown>;
  /** HTTP header fields of the answer, such as Retry-After */
  readonly headers: Record<string, string>;

  constructor(
    code: ErrorCode,
    detail: string,
    more: { extensions?: Record<string, unknown>; headers?: Record<string, string>; cause?: unknown } = {},
  ) {
    super(detail, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
    this.extensions = more.extensions ?? {};
    this.headers = more.headers ?? {};
  }

  get status(): number {
    return ERRORS[this.code].status;
  }
}

/** The problem+json body of an error of the catalogue. */
export function toProblem(error: TidemarkError, requestId: string): Problem {
  const { status, title } = ERRORS[error.code];
  return {
    type: `urn:tidemark:error:${error.code}`,
    title,
    status,
    detail: error.message,
    code: error.code,
    request_id: requestId,
    ...error.extensions,
  };
}

/** The errors page of the manual, in Markdown. */
export function errorsPage(): string {
  const rows = Object.entries<ErrorKind>(ERRORS).map(
    ([code, { status, retryable, title, hint }]) =>
      `| \`${code}\` | ${status} | ${retryable ? 'yes' : 'no'} | ${title}. ${hint} |`,
  );
  return `# Errors

HTTP errors are \`application/problem+json\` (RFC 9457) with a \`code\`; nobody needs to read the text.
Made by \`npm run docs\` from \`schemas/errors.ts\`.

| code | status | retry | what |
|---|---|---|---|
${rows.join('\n')}
`;
}
