/** The same tests with Kafka as the log. */
import '../support/on-kafka.ts';
import '../e2e/tenants.test.ts';
