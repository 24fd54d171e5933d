"""MLflow, the only importer of it, and only inside functions: how it is reached, what happened in runs, which model is champion."""
