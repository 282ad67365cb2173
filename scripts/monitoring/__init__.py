"""What is generated of the monitoring: `PYTHONPATH=scripts python -m monitoring` writes the dashboard and the PrometheusRule."""
