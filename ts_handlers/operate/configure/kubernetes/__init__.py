"""configure --kubernetes: the plan of config.properties -> an overlay whose numbers are the same ones."""
