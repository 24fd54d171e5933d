"""Commands of benchmark suites: which there are, what one holds, a policy on one."""
