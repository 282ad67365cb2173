"""`ts-handlers tune`: search the settings of one archive on this machine, by measuring a real TorchServe."""
