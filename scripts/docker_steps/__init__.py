"""Run the steps of a Dockerfile where no container engine runs: each stage in a root of its own, by chroot."""
