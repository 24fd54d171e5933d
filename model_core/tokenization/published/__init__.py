"""The published language of MolmoAct as text and as token ids of its tokenizer."""
