/** The same tests with Kafka as the log. */
import '../support/on-kafka.ts';
import '../faults/crashes.test.ts';
