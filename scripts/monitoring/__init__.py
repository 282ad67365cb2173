"""What is generated of the monitoring: `PYTHONPATH=scripts python -m monitoring` writes dashboard and PrometheusRule."""
