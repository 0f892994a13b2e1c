"""One experiment: from its configuration to what it leaves."""
