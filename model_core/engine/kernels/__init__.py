"""Linear layers and the vision backbone by packed CPU kernels."""
