"""One function per stage: finished steps in, a finished step out. No Prefect, so the data commands use them too."""
