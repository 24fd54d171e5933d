"""Questions about web images in a training of the published layout: made into examples, drawn at their rates, measured, accounted for."""
