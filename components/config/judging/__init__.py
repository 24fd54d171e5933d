"""What the gate answers, as frozen values that stages, commands and the report share."""
