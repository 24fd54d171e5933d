"""What is judged and what the gate asks and answers, as frozen values that stages, commands and the report share."""
