"""What watches the processes of a training from outside: their events, whether they work, further attempts, how time was used."""
