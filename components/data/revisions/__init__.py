"""What people state of episodes after they were recorded: appended revisions with author and time, and the edits that they come to."""
