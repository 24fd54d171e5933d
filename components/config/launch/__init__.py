"""How the processes of a training are started: on this machine, and as a job of a cluster."""
