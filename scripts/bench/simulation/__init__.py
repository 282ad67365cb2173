"""A day of bursty traffic, served by pods that four autoscalers scale: a discrete-event simulation, no cluster needed."""
