"""Quality in production: what audits say of each cell and task, and alarms of it with a stated budget of false ones."""
