/** The tables partitioned by time: column and chunk width. Both engines and tiering read this. */
const DAY = 86_400_000;
export const TIME_TABLES = {
  events: { table: 'events', column: 'timestamp', chunkMs: DAY },
  rollups_minute: { table: 'rollups_minute', column: 'bucket', chunkMs: DAY },
  rollups_hour: { table: 'rollups_hour', column: 'bucket', chunkMs: 30 * DAY },
  rollups_coarse: { table: 'rollups_coarse', column: 'bucket', chunkMs: 30 * DAY },
  members_minute: { table: 'members_minute', column: 'bucket', chunkMs: DAY },
  members_hour: { table: 'members_hour', column: 'bucket', chunkMs: 30 * DAY },
} as const;
export type TimeTableName = keyof typeof TIME_TABLES;
