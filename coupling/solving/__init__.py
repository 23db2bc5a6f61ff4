"""Who solves which sample, and what becomes of it: campaigns, schedules, jobs, failures."""
