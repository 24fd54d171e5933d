"""Where episodes are on this machine, and the table, frames and revisions of them that commands and pages share."""
