"""config.properties of servers that need not exist."""

from __future__ import annotations

from ts_handlers.operate.torchserve.process.ports import free_ports

MODELS = 'models={"a": {"1.0": {"minWorkers": 2}}}\n'


def config_text(*, first_worker: int = 48_000) -> str:
    inference, management, metrics, grpc_inference, grpc_management = free_ports(5)
    return MODELS + (
        f"inference_address=http://127.0.0.1:{inference}\nmanagement_address=http://127.0.0.1:{management}\n"
        f"metrics_address=http://127.0.0.1:{metrics}\ngrpc_inference_port={grpc_inference}\n"
        f"grpc_management_port={grpc_management}\ninitial_worker_port={first_worker}\n"
    )
