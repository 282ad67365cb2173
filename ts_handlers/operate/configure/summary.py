"""What `configure` says on the console of what it decided."""

from __future__ import annotations

from ts_handlers.operate.configure.plan import Plan


def print_plan(plan: Plan) -> None:
    """Print workers, queue and frontend, and why there are so many workers."""
    width = max(len(f"{model.name} {model.version}") for model in plan.models)
    for model in plan.models:
        fixed = f"  ({', '.join(model.fixed)}: decided by its model-config.yaml)" if model.fixed else ""
        label = f"{model.name} {model.version}"
        print(f"  {label:{width}}  {count_of(model.min_workers, 'worker')}, batches of up to {model.batch_size}{fixed}")
    over = f" (more than the {plan.cpus:g} CPUs)" if plan.num_workers > max(plan.cpus, 1) and not plan.gpus else ""
    threads = count_of(plan.workers.threads, "thread")
    print(
        f"  {count_of(plan.num_workers, 'worker')} in all{over}, {threads} each, one queue of {plan.job_queue_size} for "
        "each model"
    )
    for line in plan.workers.reason.splitlines():
        print(f"    {line}")
    print(f"  frontend: {count_of(plan.netty_threads, 'thread')} + {plan.netty_client_threads}, heap {plan.heap_mb} MB")


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: 1 worker, 2 workers."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"
