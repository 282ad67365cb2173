"""What TorchServe would make of a config.properties: findings, the worst first."""
