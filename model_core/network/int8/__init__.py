"""Networks whose linear layers have int8 weights: how they are recognised, rounded, computed and made float again."""
