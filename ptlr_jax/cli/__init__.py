"""From the command line to a checked, frozen configuration."""
