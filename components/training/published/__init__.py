"""Networks of the published layout as something that can be trained: opened, given examples, packed, measured and written."""
