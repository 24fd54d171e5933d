"""Where bytes are kept outside of the store of steps: a folder, any S3 endpoint, or the embedded SeaweedFS."""
