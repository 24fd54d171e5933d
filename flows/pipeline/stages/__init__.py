"""One function per stage, without Prefect: finished steps in, a finished step out."""
