"""The parts of a trunk: one idea a file, one registry a role, and the trunk that runs a schedule of them."""
