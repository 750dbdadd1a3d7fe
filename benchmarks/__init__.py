"""Speed and memory against the plain way, side by side in one run. Every benchmark takes `--json FILE`."""
