"""`ts-handlers autoscale`: as many workers as the traffic needs, in a pod that is resized in place or on one machine."""
