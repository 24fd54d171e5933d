"""Public clients of other projects drive the service unmodified: `make conformance`. Not part of `make test`."""
