"""What TorchServe would make of a config.properties: a file for each subject, pure functions from Subject to findings."""
