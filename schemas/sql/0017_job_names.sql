-- Names of jobs are written in one way.
UPDATE job_runs SET job = replace(job, '-', '_') WHERE job IN ('archive-verify', 'archive-erase', 'schema-health');
