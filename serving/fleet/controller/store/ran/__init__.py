"""What each cell ran and when: spans of time for which its reports, or one episode, are evidence."""
